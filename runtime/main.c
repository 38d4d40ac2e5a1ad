/* main.c -- the entry of a training executable.  Its own member of the archive: a program that
 * brings its own `main` (a test) never pulls it in. */
#include "runtime/audit.h"
#include "runtime/zmrt.h"

extern const unsigned char zm_program[];
extern const uint64_t zm_program_bytes;
extern const ZmKernelFn zm_kernel_fns[];
extern const AuditHooks zm_audit; /* audit/ */

int main(int argc, char **argv)
{
    ZmrtImage image = {zm_program, zm_program_bytes, zm_kernel_fns, &zm_audit};
    return zmrt_main(argc, argv, &image);
}
