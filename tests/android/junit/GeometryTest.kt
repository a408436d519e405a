package dev.segformeredge.demo.checks

import dev.segformeredge.demo.core.Box
import dev.segformeredge.demo.core.FrameStats
import dev.segformeredge.demo.core.LabelMap
import dev.segformeredge.demo.core.Orientation
import dev.segformeredge.demo.core.Palette
import dev.segformeredge.demo.core.Preview
import dev.segformeredge.demo.core.RgbImage
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test

class GeometryTest {
    /** The usual phone: the back camera's sensor is turned by 90 degrees, the front one's by 270. */
    @Test
    fun framesStandUpright() {
        assertEquals(Orientation(1, false), Orientation.ofCamera(90, 0, front = false))
        assertEquals(Orientation(0, false), Orientation.ofCamera(90, 1, front = false))
        assertEquals(Orientation(3, false), Orientation.ofCamera(90, 2, front = false))
        assertEquals(Orientation(2, false), Orientation.ofCamera(90, 3, front = false))
        assertEquals(Orientation(3, true), Orientation.ofCamera(270, 0, front = true))
        assertEquals(Orientation(0, true), Orientation.ofCamera(270, 1, front = true))
        assertEquals(480, Orientation(1, false).uprightWidth(640, 480))
        assertEquals(640, Orientation(3, false).uprightHeight(640, 480))
    }

    @Test
    fun thePreviewKeepsItsShape() {
        val portrait = Preview(1080, 1920, 640, 480, 90, 0)
        assertEquals(Box(0f, 240f, 1080f, 1440f), portrait.box)
        assertEquals(0f, portrait.degrees, 0f)
        assertEquals(1f, portrait.scaleX, 1e-6f)
        assertEquals(0.75f, portrait.scaleY, 1e-6f)
        // Turned to the left: the upright texture is laid on its side, and fills the height.
        val landscape = Preview(1920, 1080, 640, 480, 90, 1)
        assertEquals(Box(240f, 0f, 1440f, 1080f), landscape.box)
        assertEquals(-90f, landscape.degrees, 0f)
        assertEquals(1080f / 1920f, landscape.scaleX, 1e-6f)
        assertEquals(1440f / 1080f, landscape.scaleY, 1e-6f)
    }

    @Test
    fun labelsBecomeColours() {
        val labels = LabelMap(3, 1, byteArrayOf(0, 1, -1))
        val pixels = IntArray(3)
        Palette(listOf(0x102030, 0xffffff)).colourise(labels, pixels)
        assertArrayEquals(intArrayOf(0xff102030.toInt(), -1, 0), pixels)
        assertEquals(1, Palette.count(labels)[255])
    }

    @Test
    fun pixelsBecomeAPicture() {
        val image = RgbImage.fromArgb(intArrayOf(0xff010203.toInt(), 0x7ffeff00), 2, 1)
        assertArrayEquals(byteArrayOf(1, 2, 3, -2, -1, 0), image.data)
    }

    @Test
    fun percentilesOfTheLatest() {
        val stats = FrameStats(window = 4)
        assertNull(stats.percentile(0.5))
        listOf(100.0, 4.0, 1.0, 3.0, 2.0).forEach(stats::add)
        assertEquals(2.0, requireNotNull(stats.percentile(0.5)), 0.0)
        assertEquals(4.0, requireNotNull(stats.percentile(0.95)), 0.0)
        stats.clear()
        assertNull(stats.percentile(0.5))
    }
}
