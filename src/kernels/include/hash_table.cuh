// A hash table of counts by key that a group of threads fills together, in shared or in global memory: open addressing
// with linear probing.
//
//   const CountTable table(keys, counts, slots);  // arrays of `slots` words each, and more slots than there are keys
//   table.clear(rank, size);                      // by all `size` threads of the group
//   // the group synchronizes
//   const u32 sum = table.add(key, count);        // by any thread; any key but NO_KEY
//   // the group synchronizes
//   table.for_each(rank, size, function);         // calls function(key, count) for each key
//
// `add` returns the count of the key with what was added. Of all calls with a key, one returns its final count, and none
// returns more, so the largest count can be found while the table is filled.
//
// A table of global memory is shared by the threads of one block.

#ifndef TOWER_KERNELS_HASH_TABLE
#define TOWER_KERNELS_HASH_TABLE

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 NO_KEY = 0xffffffffu;

struct CountTable {
    u32* keys;
    u32* counts;
    u32 slots;

    __device__ CountTable(u32* keys, u32* counts, u32 slots) : keys(keys), counts(counts), slots(slots) {}

    __device__ void clear(u32 rank, u32 size) const {
        for (u32 slot = rank; slot < slots; slot += size) {
            keys[slot] = NO_KEY;
            counts[slot] = 0;
        }
    }

    __device__ u32 add(u32 key, u32 count) const {
        // Multiplicative hashing: the high bits of the product.
        u32 slot = __umulhi(key * 0x9e3779b1u, slots);
        for (;;) {
            u32 found = *(volatile u32*)&keys[slot];
            if (found == NO_KEY) found = atomicCAS(&keys[slot], NO_KEY, key);
            if (found == NO_KEY || found == key) return atomicAdd(&counts[slot], count) + count;
            slot = slot + 1 == slots ? 0 : slot + 1;
        }
    }

    template <class Function> __device__ void for_each(u32 rank, u32 size, Function function) const {
        for (u32 slot = rank; slot < slots; slot += size) {
            if (keys[slot] != NO_KEY) function(keys[slot], counts[slot]);
        }
    }
};

#endif
