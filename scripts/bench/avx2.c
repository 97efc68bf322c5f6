/* Makes a machine with AVX-512 look like one without, for what asks it as usual, by CPUID:
 *
 *   cc -O2 -shared -fPIC -o avx2.so avx2.c && LD_PRELOAD=./avx2.so PROGRAM
 *
 * On processors and kernels that can trap CPUID (arch_prctl ARCH_SET_CPUID), each one runs into the
 * handler below, which clears the bits of AVX-512 and AMX from its answer. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

/* Leaf 7: AVX512F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS,
 * VP2INTERSECT, AMX-BF16, FP16, AMX-TILE, AMX-INT8. Leaf 7.1: AVX512-BF16, AMX-FP16. */
static const unsigned EBX = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const unsigned ECX = 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14;
static const unsigned EDX = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25;
static const unsigned EAX_1 = 1u << 5 | 1u << 21;

static void trap(int on) {
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on)) {
        fputs("avx2.so: CPUID cannot be trapped here\n", stderr);
        _exit(2);
    }
}

static void answer(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)r[REG_RIP];
    if (at[0] != 0x0f || at[1] != 0xa2) {
        abort(); /* A real fault. */
    }
    unsigned a, b, c, d, leaf = r[REG_RAX], part = r[REG_RCX];
    trap(0);
    __cpuid_count(leaf, part, a, b, c, d);
    trap(1);
    if (leaf == 7 && part == 0) {
        b &= ~EBX, c &= ~ECX, d &= ~EDX;
    } else if (leaf == 7 && part == 1) {
        a &= ~EAX_1;
    }
    r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
    r[REG_RIP] += 2;
}

__attribute__((constructor)) static void start(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    trap(1);
}
