/* Fails in every way that C offers: `c_faults MODE [ARGUMENT]...`.
 *
 * Built with -O2 -g -fstack-protector-all -D_FORTIFY_SOURCE=2, once dynamically linked
 * (c_faults) and once statically (c_faults_static). Each mode says what must come of it.
 * `c_faults wait MODE [ARGUMENT]...` waits for SIGUSR1 first. */
#define _GNU_SOURCE
#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static const useconds_t A_WHILE_US = 200 * 1000;

/* abort() in call_abort; SIGABRT. */
static NOINLINE void call_abort(void) { abort(); }

/* Assertion `balance >= 0' in withdraw; SIGABRT. */
static NOINLINE void withdraw(int balance) { assert(balance >= 0); }

/* __stack_chk_fail at the end of overrun; SIGABRT. */
static NOINLINE void overrun(size_t length) {
    char buffer[8];
    volatile char *byte = buffer;
    for (size_t i = 0; i < length; i++)
        byte[i] = 'x';
}

/* __fortify_fail through __memcpy_chk in copy_name; SIGABRT. The length is known only at run
 * time, so that the compiler leaves the check in. */
static NOINLINE void copy_name(const char *name, size_t length) {
    char buffer[8];
    memcpy(buffer, name, length);
    printf("%.8s\n", buffer);
}

/* SIGSEGV (SEGV_MAPERR) at the given address in write_to. */
static NOINLINE void write_to(uintptr_t address) {
    *(volatile int *volatile)address = 1;
}

/* SIGFPE (FPE_INTDIV) in divide. */
static NOINLINE int divide(volatile int a, volatile int b) { return a / b; }

/* SIGILL (ILL_ILLOPN) in call_trap. */
static NOINLINE void call_trap(void) { __builtin_trap(); }

/* SIGBUS (BUS_ADRERR) in read_past_end: the mapped file has no bytes. */
static NOINLINE int read_past_end(void) {
    FILE *file = tmpfile();
    volatile char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fileno(file), 0);
    return map[0];
}

/* SIGSEGV in recurse, at an address just below the stack. */
static NOINLINE long recurse(volatile long depth) {
    volatile char room[1024];
    room[0] = (char)depth;
    return recurse(depth + 1) + room[0];
}

/* The program's own handler gives the signal back to the kernel: SIGSEGV at 0xbeef0000 in
 * write_to, then SIGSEGV (SI_TKILL) from raise in reraise. */
static void reraise(int signal_number) {
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static NOINLINE void handler_reraises(void) {
    signal(SIGSEGV, reraise);
    write_to(0xbeef0000);
}

/* The program's own handler leaves by siglongjmp; exit code 0. */
static sigjmp_buf safe_place;

static void jump_back(int signal_number) { siglongjmp(safe_place, signal_number); }

static NOINLINE void handles_segv(void) {
    signal(SIGSEGV, jump_back);
    if (sigsetjmp(safe_place, 1) == 0)
        write_to(0xbeef0000);
}

/* The main thread ends first; a while later another thread ends the process, by exit(4) or by
 * abort(). */
static void *exit_later(void *unused) {
    (void)unused;
    usleep(A_WHILE_US);
    exit(4);
}

static void *abort_later(void *unused) {
    (void)unused;
    usleep(A_WHILE_US);
    call_abort();
    return NULL;
}

static NOINLINE void leader_exits_first(void *(*rest)(void *)) {
    pthread_t thread;
    pthread_create(&thread, NULL, rest, NULL);
    pthread_exit(NULL);
}

/* A child process aborts in call_abort; the parent waits for it and exits with code 0. */
static NOINLINE void fork_child_aborts(void) {
    pid_t child = fork();
    if (child == 0)
        call_abort();
    waitpid(child, NULL, 0);
}

/* The parent and the middle process exit with code 0 at once; the orphaned grandchild aborts in
 * call_abort a while later. */
static NOINLINE void double_fork(void) {
    if (fork() != 0)
        return;
    if (fork() != 0)
        _exit(0);
    usleep(A_WHILE_US);
    call_abort();
}

/* Becomes another program: the one given, or a shell that exits with code 5. */
static NOINLINE void exec_other(char **command) {
    char *default_command[] = {"/bin/sh", "-c", "exit 5", NULL};
    if (command[0] == NULL)
        command = default_command;
    execvp(command[0], command);
    perror("c_faults: exec");
    exit(127);
}

/* Survives three errors and names each to a function of its own:
 * report_failure(101, "disk 1 is full"), (102, "disk 2 is full"), (103, "disk 3 is full"); exit
 * code 0. */
NOINLINE void report_failure(int code, const char *reason) {
    __asm__ volatile("" : : "r"(code), "r"(reason) : "memory");
}

static NOINLINE void reports(void) {
    for (int disk = 1; disk <= 3; disk++) {
        char reason[32];
        snprintf(reason, sizeof reason, "disk %d is full", disk);
        report_failure(100 + disk, reason);
    }
}

/* Takes up to so many MiB of memory, as the out-of-memory killer's first choice; exit code 0 if
 * there was enough. */
static NOINLINE void eat_memory(long mebibytes) {
    FILE *file = fopen("/proc/self/oom_score_adj", "w");
    if (file != NULL) {
        fputs("1000", file);
        fclose(file);
    }
    for (long i = 0; i < mebibytes; i++)
        mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
             0);
}

/* A thread that is not the leader becomes the program given, which takes over the leader's id. */
static void *exec_command(void *command) {
    execv(((char **)command)[0], command);
    perror("c_faults: exec");
    exit(127);
}

static NOINLINE void exec_from_thread(char **command) {
    pthread_t thread;
    pthread_create(&thread, NULL, exec_command, command);
    pthread_join(thread, NULL);
}

/* A thread aborts in call_abort while the main thread waits for it; SIGABRT. */
static void *abort_at_once(void *unused) {
    (void)unused;
    call_abort();
    return NULL;
}

static NOINLINE void abort_in_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, abort_at_once, NULL);
    pthread_join(thread, NULL);
}

static void wait_for_go(void) {
    sigset_t go;
    int received;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR1);
    sigprocmask(SIG_BLOCK, &go, NULL);
    sigwait(&go, &received);
    sigprocmask(SIG_UNBLOCK, &go, NULL);
}

/* Waits to be killed. */
static void sleep_for_ever(void) {
    for (;;)
        pause();
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "wait") == 0) {
        wait_for_go();
        argc--;
        argv++;
    }
    const char *mode = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "";
    volatile int zero = 0;
#define MODE(name) (strcmp(mode, name) == 0)
    if (MODE("abort"))
        call_abort();
    else if (MODE("assert"))
        withdraw(zero - 5);
    else if (MODE("stack_smash"))
        overrun(64 + zero);
    else if (MODE("fortify"))
        copy_name("a name that is much too long", 28 + zero);
    else if (MODE("segv_null"))
        write_to(0);
    else if (MODE("segv_addr"))
        write_to(0xdead0000);
    else if (MODE("fpe"))
        return divide(1, zero);
    else if (MODE("ill"))
        call_trap();
    else if (MODE("bus"))
        return read_past_end();
    else if (MODE("stack_overflow"))
        return (int)recurse(0);
    else if (MODE("handler_reraise"))
        handler_reraises();
    else if (MODE("handled_segv"))
        handles_segv();
    else if (MODE("exit3"))
        exit(3);
    else if (MODE("leader_exits_first"))
        leader_exits_first(exit_later);
    else if (MODE("leader_exits_abort"))
        leader_exits_first(abort_later);
    else if (MODE("fork_child_aborts"))
        fork_child_aborts();
    else if (MODE("double_fork"))
        double_fork();
    else if (MODE("exec_other"))
        exec_other(argv + 2);
    else if (MODE("exec_from_thread"))
        exec_from_thread(argv + 2);
    else if (MODE("abort_in_thread"))
        abort_in_thread();
    else if (MODE("report"))
        reports();
    else if (MODE("eat_memory"))
        eat_memory(atol(argument));
    else if (MODE("sleep"))
        sleep_for_ever();
    else {
        fprintf(stderr, "c_faults: no mode '%s'\n", mode);
        return 64;
    }
    return 0;
}
