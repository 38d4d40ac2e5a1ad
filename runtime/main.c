/* main.c -- the entry of a training executable.  Its own member of the archive: a program that
 * brings its own `main` (a test) never pulls it in. */
#include "runtime/audit.h"
#include "runtime/zmrt.h"

extern const unsigned char zm_program[];
extern const uint64_t zm_program_bytes;
extern const ZmKernelFn zm_kernel_fns[];
extern const unsigned char zm_mpi_shim[];
extern const uint64_t zm_mpi_shim_bytes;
extern const unsigned char zm_device_code[];
extern const uint64_t zm_device_code_bytes;
extern const AuditHooks zm_audit; /* audit/ */

int main(int argc, char **argv)
{
    ZmrtImage image = {.program = zm_program,
                       .program_bytes = zm_program_bytes,
                       .kernel_fns = zm_kernel_fns,
                       .audit = &zm_audit,
                       .mpi_shim = zm_mpi_shim,
                       .mpi_shim_bytes = zm_mpi_shim_bytes,
                       .device_code = zm_device_code,
                       .device_code_bytes = zm_device_code_bytes};
    return zmrt_main(argc, argv, &image);
}
