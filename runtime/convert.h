/* convert.h -- arrays of numbers between f32 and the dtypes of program.h (nearest even). */
#ifndef ZM_RUNTIME_CONVERT_H
#define ZM_RUNTIME_CONVERT_H

#include <stddef.h>
#include <stdint.h>

/* dtype: ZMP_BF16, ZMP_F16, ZMP_F32 or ZMP_F64; addresses need no alignment. */
void convert_to_f32(float *out, const void *in, uint32_t dtype, size_t n);
void convert_from_f32(void *out, uint32_t dtype, const float *in, size_t n);

#endif
