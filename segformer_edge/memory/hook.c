/* Counts the heap of a program: preload it (LD_PRELOAD) and ask it through ctypes.
 *
 * The heap is what malloc and its relatives were asked for, plus anonymous writable mappings. Mappings of files are
 * counted apart. Blocks of LARGE bytes and more are logged with birth and death, so that the set that was live at a
 * peak can be read afterwards.
 *
 * No header is used and no library but the C library that the program brings: gcc, clang and tcc build it on x86-64,
 * aarch64 and 32-bit ARM without development files. Linux with glibc.
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

enum { PROT_READ_ = 1, PROT_WRITE_ = 2, MAP_PRIVATE_ = 2, MAP_ANONYMOUS_ = 0x20 };
enum { MREMAP_MAYMOVE_ = 1, MREMAP_FIXED_ = 2, MREMAP_DONTUNMAP_ = 4, ENOMEM_ = 12, EINVAL_ = 22 };
enum { PAGE_BITS = 12, PAGE = 1 << PAGE_BITS, LARGE = 256, PHASES = 16, FIELDS = 6 };
enum { PLAIN, ALIGNED, MAPPED, FILE_MAPPED }; /* kinds of blocks */
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

void *malloc(size_t size)
{
    void *block = __libc_malloc(size);
    born(block, size, PLAIN);
    return block;
}

void *calloc(size_t count, size_t size)
{
    void *block = __libc_calloc(count, size); /* null where the product overflows */
    born(block, count * size, PLAIN);
    return block;
}

void free(void *block)
{
    died(block); /* first: another thread may get the address at once */
    __libc_free(block);
}

void *realloc(void *block, size_t size)
{
    void *moved;
    word i, old_size = 0, known = 0;
    if (!block)
        return malloc(size);
    if (!size) {
        free(block);
        return 0;
    }
    pthread_mutex_lock(lock);
    if (slot_count) {
        i = slot_of((word)block);
        while (slots[i].address && slots[i].address != (word)block)
            i = (i + 1) & (slot_count - 1);
        known = slots[i].address != 0;
        old_size = slots[i].size;
    }
    pthread_mutex_unlock(lock);
    died(block);
    moved = __libc_realloc(block, size);
    if (moved)
        born(moved, size, PLAIN);
    else if (known)
        born(block, old_size, PLAIN); /* it failed: the old block is still there */
    return moved;
}

void *reallocarray(void *block, size_t count, size_t size)
{
    size_t total = 0, bit;
    for (bit = ~(~(size_t)0 >> 1); bit; bit >>= 1) { /* the product, highest bit of count first */
        if (total >> (8 * sizeof(size_t) - 1) || (count & bit && 2 * total + size < size)) {
            *__errno_location() = ENOMEM_;
            return 0;
        }
        total = 2 * total + (count & bit ? size : 0);
    }
    return realloc(block, total);
}

void *memalign(size_t alignment, size_t size)
{
    void *block = __libc_memalign(alignment, size);
    born(block, size, ALIGNED);
    return block;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *block;
    int saved = *__errno_location();
    if (!alignment || alignment < sizeof(void *) || alignment & (alignment - 1))
        return EINVAL_;
    block = memalign(alignment, size);
    *__errno_location() = saved;
    if (!block)
        return ENOMEM_;
    *out = block;
    return 0;
}

void *valloc(size_t size)
{
    return memalign(PAGE, size);
}

void *pvalloc(size_t size)
{
    return memalign(PAGE, (size + PAGE - 1) & ~(size_t)(PAGE - 1));
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
    else
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
    else
        rise(size);
}

static void *map(void *address, size_t size, int protection, int flags, int file, word offset)
{
    void *block;
    pthread_mutex_lock(lock); /* around the call: another thread may unmap and get the same addresses */
    block = (void *)syscall(NR_MMAP, (word)address, size, protection, flags, (word)(long)file, offset);
    if (block != FAILED) {
        if (!(flags & MAP_ANONYMOUS_))
            mapped((word)block, pages(size), FILE_MAPPED);
        else if (protection & PROT_WRITE_)
            mapped((word)block, pages(size), MAPPED);
        else
            unmapped((word)block, (word)block + pages(size));
    }
    pthread_mutex_unlock(lock);
    return block;
}

#if defined(__arm__)
void *mmap(void *address, size_t size, int protection, int flags, int file, long offset)
{
    return map(address, size, protection, flags, file, (word)offset >> PAGE_BITS);
}

void *mmap64(void *address, size_t size, int protection, int flags, int file, long long offset)
{
    /* Shifting 64 bits would call into the compiler's library, as would a division. */
    const word *halves = (const word *)&offset;
    return map(address, size, protection, flags, file, halves[0] >> PAGE_BITS | halves[1] << (32 - PAGE_BITS));
}
#else
void *mmap(void *address, size_t size, int protection, int flags, int file, long offset)
{
    return map(address, size, protection, flags, file, (word)offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int file, long offset)
{
    return map(address, size, protection, flags, file, (word)offset);
}
#endif

int munmap(void *address, size_t size)
{
    long failed;
    pthread_mutex_lock(lock);
    failed = syscall(NR_MUNMAP, (word)address, size, 0, 0, 0, 0);
    if (!failed)
        unmapped((word)address, (word)address + pages(size));
    pthread_mutex_unlock(lock);
    return (int)failed;
}

/* The fifth argument is there only with MREMAP_FIXED; reading it otherwise reads a register that is not used. */
void *mremap(void *address, size_t old_size, size_t new_size, int flags, void *wanted)
{
    void *block;
    word i, kind = PHASES;
    pthread_mutex_lock(lock);
    for (i = 0; i < interval_count; i++)
        if (intervals[i].start <= (word)address && (word)address < intervals[i].end)
            kind = intervals[i].kind;
    block = (void *)syscall(NR_MREMAP, (word)address, old_size, new_size, flags,
                            flags & MREMAP_FIXED_ ? (word)wanted : 0, 0);
    if (block != FAILED && kind != PHASES) {
        if (old_size && !(flags & MREMAP_DONTUNMAP_))
            unmapped((word)address, (word)address + pages(old_size));
        mapped((word)block, pages(new_size), kind);
    }
    pthread_mutex_unlock(lock);
    return block;
}

/* What the program asks. All numbers are bytes unless named otherwise. */

word hook_current(void) { return current; }
word hook_file_current(void) { return file_current; }
word hook_allocations(void) { return allocations; }
word hook_peak(word of_phase) { return peak[of_phase]; }

/* Phase 0 is before everything: its blocks are not logged. A phase's peak starts at what stands. */
void hook_phase(word number)
{
    pthread_mutex_lock(lock);
    phase = number;
    peak[phase] = current;
    peak_event[phase] = large_events;
    pthread_mutex_unlock(lock);
}

/* The logged blocks that were live at the peak of a phase, or now (of_phase == PHASES): FIELDS words each into `out`,
 * `room` blocks at most. Returns how many there are. */
word hook_blocks(word of_phase, word *out, word room)
{
    word i, j, found = 0, when;
    const word *fields;
    pthread_mutex_lock(lock);
    when = of_phase == PHASES ? large_events : peak_event[of_phase];
    for (i = 0; i < record_count; i++) {
        if (records[i].born > when || records[i].died <= when)
            continue;
        fields = (const word *)&records[i];
        if (found < room)
            for (j = 0; j < FIELDS; j++)
                out[found * FIELDS + j] = fields[j];
        found++;
    }
    pthread_mutex_unlock(lock);
    return found;
}
