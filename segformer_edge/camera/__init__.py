"""A camera's pictures through an exported file: ``python -m segformer_edge.camera FILE --source 0 --serve 8080``.

Part of what a device installs: numpy, OpenCV and one runtime, no torch. Each thread has one task and hands the next one
the newest picture, never a queue of them:

    capture -> LatestFrame -> inference -> recorder, label maps
                                       \\-> Newest result -> window (main thread)
                                                         \\-> page: one drawing thread, one thread a browser
"""
