/* A TCG plugin that counts the emulated program's instructions between marks.
 *
 *     qemu-aarch64 -plugin counter.so,out=FILE ...
 *
 * A mark is a call of the system call MARK, a number that Linux does not have: the program gets "not implemented" and
 * goes on. Each one writes a line "MARK-NUMBER INSTRUCTIONS" to FILE. System calls end a translation block, so the
 * count at a mark is exact.
 *
 * QEMU has no header of its own in Debian: what it offers plugins of version 1 is declared here, after its
 * documentation "TCG Plugins". No C library is linked either; the emulator's own is used.
 */

#include <stddef.h>
#include <stdint.h>

#define MARK 24304
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint64_t word;
struct qemu_plugin_tb; /* a translation block: instructions that run one after another */
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, enum qemu_plugin_op op, void *where,
                                              uint64_t add);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*call)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                          void (*call)(qemu_plugin_id_t, unsigned, int64_t, word, word, word, word,
                                                       word, word, word, word));
int open(const char *path, int flags, ...);
int dprintf(int file, const char *format, ...);
int strncmp(const char *a, const char *b, size_t length);

EXPORT int qemu_plugin_version = 1;

static uint64_t count; /* of all threads; two that run at once may lose some, so programs here use one */
static int out = -1;

/* QEMU has translated a block: let the block itself add its length each time it runs. */
static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &count, qemu_plugin_tb_n_insns(block));
}

static void called(qemu_plugin_id_t id, unsigned thread, int64_t number, word a1, word a2, word a3, word a4, word a5,
                   word a6, word a7, word a8)
{
    (void)id, (void)thread, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == MARK)
        dprintf(out, "%llu %llu\n", (unsigned long long)a1, (unsigned long long)count);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *about, int count_of_options, char **options)
{
    (void)about;
    if (count_of_options != 1 || strncmp(options[0], "out=", 4) != 0)
        return 1;
    out = open(options[0] + 4, 01 | 02000); /* O_WRONLY | O_APPEND: the caller has made the file */
    if (out < 0)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
