/* Turns XNNPACK's profiler on inside a library that never does, and notes when its graphs run.
 *
 * ExecuTorch's Python wheel exports XNNPACK's functions and calls them through its symbol table, so definitions that
 * were loaded before it (dlopen with RTLD_GLOBAL) take their place. ``hook_real`` gives the addresses of the real ones.
 * Without system headers, as memory/hook.c. Inferences of one thread at a time.
 */
typedef unsigned long long u64;
typedef unsigned int u32;
struct timespec { long seconds, nanoseconds; };
int clock_gettime(int clock, struct timespec *now);

enum { SUCCESS = 0, BASIC_PROFILING = 8, MONOTONIC = 1, CALLS = 1 << 16 };
typedef int create_fn(void *subgraph, void *cache, void *workspace, void *pool, u32 flags, void **made);
typedef int invoke_fn(void *runtime);

struct call { void *runtime; u64 start, end; };
static create_fn *real_create;
static invoke_fn *real_invoke;
int hook_profiling, hook_count;
struct call hook_calls[CALLS];

void hook_real(create_fn *create, invoke_fn *invoke)
{
    real_create = create;
    real_invoke = invoke;
}

static u64 now(void)
{
    struct timespec time;
    clock_gettime(MONOTONIC, &time);
    return (u64)time.seconds * 1000000000 + (u64)time.nanoseconds;
}

int xnn_create_runtime_v4(void *subgraph, void *cache, void *workspace, void *pool, u32 flags, void **made)
{
    return real_create(subgraph, cache, workspace, pool, hook_profiling ? flags | BASIC_PROFILING : flags, made);
}

int xnn_invoke_runtime(void *runtime)
{
    u64 start = now();
    int status = real_invoke(runtime);
    if (status == SUCCESS && hook_count < CALLS) {
        hook_calls[hook_count].runtime = runtime;
        hook_calls[hook_count].start = start;
        hook_calls[hook_count++].end = now();
    }
    return status;
}
