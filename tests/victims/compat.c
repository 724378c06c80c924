/* A 32-bit program: `compat`. It is free of any library, so that no 32-bit one has to be installed.
 *
 * Makes 1,000 getppid calls, and 10 close calls of a descriptor that is not open (EBADF); exit
 * code 0. The calls' numbers (arch/x86/entry/syscalls/syscall_32.tbl) mean others for 64-bit
 * programs: semget and lstat. */
enum { EXIT = 1, CLOSE = 6, GETPPID = 64 };

static long call(long number, long argument) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(argument) : "memory");
    return result;
}

void _start(void) {
    for (int i = 0; i < 1000; i++)
        call(GETPPID, 0);
    for (int i = 0; i < 10; i++)
        call(CLOSE, -1);
    call(EXIT, 0);
    __builtin_unreachable();
}
