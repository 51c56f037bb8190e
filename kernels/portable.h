/* What gcc and clang (C11), nvcc and NVRTC spell differently, under one name.
 *
 * Everything below kernels/ is written in the subset of C that all of them accept, so that one text serves every
 * backend. Functions are marked QR_FN: inlined where they are called, and under CUDA callable from host and device
 * alike. */
#ifndef QR_PORTABLE_H
#define QR_PORTABLE_H

#ifdef __CUDACC_RTC__
/* NVRTC has no system headers. These are the types that <stdint.h> gives on 64-bit Linux. */
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;
#else
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#endif

#ifdef __CUDACC__
#define QR_FN static __host__ __device__ __forceinline__
#else
#define QR_FN static inline __attribute__((always_inline))
#endif

/* Before a loop that is to be written out. Host compilers choose for themselves. */
#ifdef __CUDA_ARCH__
#define QR_UNROLL _Pragma("unroll")
#else
#define QR_UNROLL
#endif

/* a * b + c, rounded once. Without FMA instructions the host calls the C library: right, but slow. */
QR_FN float qr_fmaf(float a, float b, float c)
{
#ifdef __CUDA_ARCH__
    return __fmaf_rn(a, b, c);
#else
    return __builtin_fmaf(a, b, c);
#endif
}

/* The bits of a float, and the float of given bits. */
QR_FN uint32_t qr_float_bits(float value)
{
#ifdef __CUDA_ARCH__
    return __float_as_uint(value);
#else
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
#endif
}

QR_FN float qr_float_from_bits(uint32_t bits)
{
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
#endif
}

/* The upper 64 of the 128 bits of a * b. */
QR_FN uint64_t qr_mul_high64(uint64_t a, uint64_t b)
{
#ifdef __CUDA_ARCH__
    return __umul64hi(a, b);
#else
    __extension__ typedef unsigned __int128 qr_uint128;
    return (uint64_t)((qr_uint128)a * b >> 64);
#endif
}

/* How many bits are set. */
QR_FN uint32_t qr_popcount64(uint64_t bits)
{
#ifdef __CUDA_ARCH__
    return (uint32_t)__popcll(bits);
#else
    return (uint32_t)__builtin_popcountll(bits);
#endif
}

/* The number of the lowest bit that is set; bits must not be 0. */
QR_FN uint32_t qr_count_trailing_zeros64(uint64_t bits)
{
#ifdef __CUDA_ARCH__
    return (uint32_t)(__ffsll((long long)bits) - 1);
#else
    return (uint32_t)__builtin_ctzll(bits);
#endif
}

#endif
