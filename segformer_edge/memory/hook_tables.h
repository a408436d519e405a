/* What hook.c knows: every live block, every mapping, and a log of the larger ones. Included by hook.c alone.
 *
 * Its own memory comes from the kernel by system calls, outside of what is counted. All of it is guarded by `lock`.
 */
typedef __SIZE_TYPE__ size_t;
typedef unsigned long word; /* as wide as a pointer on all three */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
extern int *__errno_location(void);
extern int pthread_mutex_lock(void *);
extern int pthread_mutex_unlock(void *);
extern long syscall(long, word, word, word, word, word, word);

#if defined(__x86_64__)
enum { NR_MMAP = 9, NR_MUNMAP = 11, NR_MREMAP = 25 };
#elif defined(__aarch64__)
enum { NR_MMAP = 222, NR_MUNMAP = 215, NR_MREMAP = 216 };
#elif defined(__arm__)
enum { NR_MMAP = 192, NR_MUNMAP = 91, NR_MREMAP = 163 }; /* mmap2, which counts offsets in pages */
#else
#error "this processor's system call numbers are not known"
#endif

enum { PROT_READ_ = 1, PROT_WRITE_ = 2, MAP_PRIVATE_ = 2, MAP_ANONYMOUS_ = 0x20, MAP_NORESERVE_ = 0x4000 };
enum { MREMAP_MAYMOVE_ = 1, MREMAP_FIXED_ = 2, MREMAP_DONTUNMAP_ = 4, ENOMEM_ = 12, EINVAL_ = 22 };
enum { PAGE_BITS = 12, PAGE = 1 << PAGE_BITS, LARGE = 256, PHASES = 16, FIELDS = 6 };
enum { PLAIN, ALIGNED, MAPPED, FILE_MAPPED, RESERVED }; /* kinds of blocks */
#define FAILED ((void *)-1)
#define NEVER ((word)-1)
#define NO_RECORD ((word)-1)

typedef struct { word address, size, kind, phase, born, died; } Record; /* FIELDS words */
typedef struct { word address, size, record; } Slot;
typedef struct { word start, end, kind, phase, record; } Interval;

static word lock[16]; /* a pthread_mutex_t, statically initialised; 24 to 48 bytes */
static word current, file_current, allocations, large_events, phase;
static word peak[PHASES], peak_event[PHASES];

static Slot *slots; /* open addressing; every live block of malloc's family */
static word slot_count, slot_used;
static Record *records; /* blocks of LARGE bytes and more since hook_start, dead ones too */
static word record_count, record_room;
static Interval *intervals; /* mappings by address */
static word interval_count, interval_room;

static void *raw_map(word bytes)
{
    return (void *)syscall(NR_MMAP, 0, bytes, PROT_READ_ | PROT_WRITE_, MAP_PRIVATE_ | MAP_ANONYMOUS_, NEVER, 0);
}

/* Room for twice as many things, outside of what is counted. Where the system has no more, counting would be wrong. */
static void *grow(void *old, word old_bytes, word new_bytes)
{
    void *new = old ? (void *)syscall(NR_MREMAP, (word)old, old_bytes, new_bytes, MREMAP_MAYMOVE_, 0, 0)
                    : raw_map(new_bytes);
    if (new == FAILED)
        *(volatile int *)0 = 0;
    return new;
}

static void rise(word bytes)
{
    current += bytes;
    allocations++;
    if (current > peak[phase]) {
        peak[phase] = current;
        peak_event[phase] = large_events;
    }
}

static word record_birth(word address, word size, word kind, word of_phase)
{
    Record *r;
    if (size < LARGE || !of_phase)
        return NO_RECORD;
    if (record_count == record_room) {
        word room = record_room ? 2 * record_room : 4096;
        records = grow(records, record_room * sizeof(Record), room * sizeof(Record));
        record_room = room;
    }
    r = &records[record_count];
    r->address = address;
    r->size = size;
    r->kind = kind;
    r->phase = of_phase;
    r->born = ++large_events;
    r->died = NEVER;
    return record_count++;
}

static void record_death(word record)
{
    if (record != NO_RECORD)
        records[record].died = ++large_events;
}

/* Blocks of malloc's family: a hash table from address to size. */

static word slot_of(word address)
{
    word hash = address >> 3;
    hash ^= hash >> 15;
    hash *= (word)2654435769u;
    hash ^= hash >> 13;
    return hash & (slot_count - 1);
}

static void slot_put(word address, word size, word record)
{
    word i = slot_of(address);
    while (slots[i].address && slots[i].address != address)
        i = (i + 1) & (slot_count - 1);
    slots[i].address = address;
    slots[i].size = size;
    slots[i].record = record;
}

static void slots_double(void)
{
    Slot *old = slots;
    word i, old_count = slot_count;
    slot_count = old_count ? 2 * old_count : 65536;
    slots = grow(0, 0, slot_count * sizeof(Slot));
    for (i = 0; i < old_count; i++)
        if (old[i].address)
            slot_put(old[i].address, old[i].size, old[i].record);
    if (old)
        syscall(NR_MUNMAP, (word)old, old_count * sizeof(Slot), 0, 0, 0, 0);
}

static void born(void *block, size_t size, word kind)
{
    word record;
    if (!block)
        return;
    pthread_mutex_lock(lock);
    if (2 * slot_used >= slot_count)
        slots_double();
    record = record_birth((word)block, size, kind, phase);
    slot_put((word)block, size, record);
    slot_used++;
    rise(size);
    pthread_mutex_unlock(lock);
}

/* Blocks from before this library was there are not in the table and change nothing. */
static void died(void *block)
{
    word i, j, home;
    if (!block)
        return;
    pthread_mutex_lock(lock);
    if (slot_count) {
        i = slot_of((word)block);
        while (slots[i].address && slots[i].address != (word)block)
            i = (i + 1) & (slot_count - 1);
        if (slots[i].address) {
            current -= slots[i].size;
            record_death(slots[i].record);
            slot_used--;
            /* Close the gap: whoever passed this slot on the way to its own moves up. */
            for (j = (i + 1) & (slot_count - 1); slots[j].address; j = (j + 1) & (slot_count - 1)) {
                home = slot_of(slots[j].address);
                if (((j - home) & (slot_count - 1)) >= ((j - i) & (slot_count - 1))) {
                    slots[i] = slots[j];
                    i = j;
                }
            }
            slots[i].address = 0;
        }
    }
    pthread_mutex_unlock(lock);
}

/* Mappings: intervals that do not overlap, in order of address. */

static void interval_put(word at, word start, word end, word kind, word of_phase)
{
    word i;
    if (interval_count == interval_room) {
        word room = interval_room ? 2 * interval_room : 1024;
        intervals = grow(intervals, interval_room * sizeof(Interval), room * sizeof(Interval));
        interval_room = room;
    }
    for (i = interval_count++; i > at; i--)
        intervals[i] = intervals[i - 1];
    intervals[at].start = start;
    intervals[at].end = end;
    intervals[at].kind = kind;
    intervals[at].phase = of_phase;
    intervals[at].record = record_birth(start, end - start, kind, of_phase);
}

static void uncount(word kind, word bytes)
{
    if (kind == FILE_MAPPED)
        file_current -= bytes;
    else if (kind != RESERVED)
        current -= bytes;
}

/* Whatever is known of [start, end) is gone; parts of a mapping on either side stay, with the phase they had. */
static void unmapped(word start, word end)
{
    word i = 0, j;
    Interval old;
    while (i < interval_count && intervals[i].end <= start)
        i++;
    while (i < interval_count && intervals[i].start < end) {
        old = intervals[i];
        record_death(old.record);
        for (j = i; j + 1 < interval_count; j++)
            intervals[j] = intervals[j + 1];
        interval_count--;
        uncount(old.kind, (old.end < end ? old.end : end) - (old.start > start ? old.start : start));
        if (old.start < start)
            interval_put(i++, old.start, start, old.kind, old.phase);
        if (old.end > end)
            interval_put(i++, end, old.end, old.kind, old.phase);
    }
}

static word pages(word bytes)
{
    return (bytes + PAGE - 1) & ~(word)(PAGE - 1);
}

static void mapped(word start, word size, word kind)
{
    word at = 0;
    unmapped(start, start + size);
    while (at < interval_count && intervals[at].start < start)
        at++;
    interval_put(at, start, start + size, kind, phase);
    if (kind == FILE_MAPPED)
        file_current += size;
    else if (kind != RESERVED)
        rise(size);
}
