// Ordered bits: unsigned integers that compare as the numbers that they stand for, so that one sort of unsigned
// integers sorts every type of number.
//
// Floating-point numbers are in the total order of IEEE 754 but for NaN: -inf, negative numbers, -0, +0, positive
// numbers, +inf. All NaN are equal, come last in either direction, and come back as the quiet NaN.
// src/kernels/ordered_bits.rs is the same on the CPU.

#ifndef TOWER_KERNELS_ORDERED_BITS
#define TOWER_KERNELS_ORDERED_BITS

typedef unsigned int u32;
typedef unsigned long long u64;

// What the bits of a number mean. src/kernels/ordered_bits.rs has the same numbers.
constexpr u32 UNSIGNED_INTEGER = 0;
constexpr u32 SIGNED_INTEGER = 1;
constexpr u32 FLOATING_POINT = 2;

template <class Bits> struct BitsOf;
template <> struct BitsOf<u32> {
    typedef int Signed;
    static constexpr u32 INFINITY_BITS = 0x7f800000u;
    static constexpr u32 QUIET_NAN = 0x7fc00000u;
};
template <> struct BitsOf<u64> {
    typedef long long Signed;
    static constexpr u64 INFINITY_BITS = 0x7ff0000000000000ull;
    static constexpr u64 QUIET_NAN = 0x7ff8000000000000ull;
};

// How numbers are ordered, as masks.
template <class Bits> struct NumberOrder {
    // Bits that are flipped in all numbers, and those that are flipped in negative ones as well.
    Bits flip;
    Bits flip_negative;
    bool is_float;

    __device__ NumberOrder(u32 kind, bool descending) {
        constexpr Bits SIGN = Bits(1) << (8 * sizeof(Bits) - 1);
        is_float = kind == FLOATING_POINT;
        flip = (kind == UNSIGNED_INTEGER ? 0 : SIGN) ^ (descending ? ~Bits(0) : 0);
        flip_negative = is_float ? ~SIGN : 0;
    }

    // The ordered bits of a number other than NaN.
    __device__ Bits to_ordered_unless_nan(Bits bits) const {
        typedef typename BitsOf<Bits>::Signed Signed;
        return bits ^ flip ^ ((Bits)((Signed)bits >> (8 * sizeof(Bits) - 1)) & flip_negative);
    }

    __device__ Bits to_ordered(Bits bits) const {
        const bool is_nan = is_float && Bits(bits << 1) > Bits(BitsOf<Bits>::INFINITY_BITS << 1);
        return is_nan ? ~Bits(0) : to_ordered_unless_nan(bits);
    }

    // The number whose ordered bits these are.
    __device__ Bits from_ordered(Bits ordered) const {
        typedef typename BitsOf<Bits>::Signed Signed;
        if (is_float && ordered == ~Bits(0)) return BitsOf<Bits>::QUIET_NAN;
        // The sign is right again, and tells which bits were flipped besides.
        const Bits bits = ordered ^ flip;
        return bits ^ ((Bits)((Signed)bits >> (8 * sizeof(Bits) - 1)) & flip_negative);
    }
};

#endif
