/* Counts the heap of a program: preload it (LD_PRELOAD) and ask it through ctypes.
 *
 * The heap is what malloc and its relatives were asked for, plus anonymous writable mappings. Mappings of files are
 * counted apart, and addresses that are only reserved (MAP_NORESERVE: an allocator's room for what may come) are
 * logged and not counted. Blocks of LARGE bytes and more are logged with birth and death, so that the set that was live at a
 * peak can be read afterwards.
 *
 * It needs no system header and no library but the C library that the program brings, so a bare compiler builds it, on
 * x86-64, aarch64 and 32-bit ARM. Linux with glibc.
 */
#include "hook_tables.h"

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

/* Mappings. */

static void *map(void *address, size_t size, int protection, int flags, int file, word offset)
{
    void *block;
    pthread_mutex_lock(lock); /* around the call: another thread may unmap and get the same addresses */
    block = (void *)syscall(NR_MMAP, (word)address, size, protection, flags, (word)(long)file, offset);
    if (block != FAILED) {
        if (!(flags & MAP_ANONYMOUS_))
            mapped((word)block, pages(size), FILE_MAPPED);
        else if (protection & PROT_WRITE_)
            mapped((word)block, pages(size), flags & MAP_NORESERVE_ ? RESERVED : MAPPED);
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
