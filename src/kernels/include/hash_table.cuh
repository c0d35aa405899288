// A hash table of counts by key that a group of threads fills together, in shared or in global memory: open addressing
// with linear probing.
//
//   const CountTable table(keys, counts, slots);  // arrays of `slots` words each, and more slots than there are keys
//   table.clear(rank, size);                      // by all `size` threads of the group
//   // the group synchronizes
//   const u32 sum = table.add(key, count);        // by any thread; any key but NO_KEY
//   // the group synchronizes
//   const u32* count = table.find(key);           // by any thread; null if the key is not there
//   table.for_each(rank, size, function);         // calls function(key, count) for each key
//
// `add` returns the count of the key with what was added. Of all calls with a key, one returns its final count, and none
// returns more, so the largest count can be found while the table is filled.
//
// `try_add` does the same if the key is in the first MAX_PROBES slots where it may be, or one of them is free, and returns 0
// otherwise. As keys stay, either all calls with a key return 0, or none does: keys that a small table has no room for can
// go to a large one.
//
// `slot_of` returns the slot of a key, which stays, for values that are kept in other arrays of `slots` elements. So does
// `try_slot_of`, and NO_KEY where `try_add` returns 0. They do not use the counts, and then there need be none.
//
// A table of global memory is shared by the threads of one block.

#ifndef TOWER_KERNELS_HASH_TABLE
#define TOWER_KERNELS_HASH_TABLE

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 NO_KEY = 0xffffffffu;
constexpr u32 MAX_PROBES = 8;

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

    __device__ u32 slot_of(u32 key) const {
        u32 slot = first_slot(key);
        while (!claim(slot, key)) slot = next(slot);
        return slot;
    }

    __device__ u32 add(u32 key, u32 count) const { return atomicAdd(&counts[slot_of(key)], count) + count; }

    __device__ u32 try_slot_of(u32 key, u32 max_probes = MAX_PROBES) const {
        u32 slot = first_slot(key);
#pragma unroll 1
        for (u32 probe = 0; probe < max_probes; probe++, slot = next(slot)) {
            if (claim(slot, key)) return slot;
        }
        return NO_KEY;
    }

    __device__ u32 try_add(u32 key, u32 count) const {
        const u32 slot = try_slot_of(key);
        return slot == NO_KEY ? 0 : atomicAdd(&counts[slot], count) + count;
    }

    // The count of a key, which is put into the table if it is not there.
    __device__ u32* insert(u32 key) const { return &counts[slot_of(key)]; }

    // The count of a key, or null if it is not in the table. No thread inserts meanwhile.
    __device__ const u32* find(u32 key) const {
        for (u32 slot = first_slot(key);; slot = next(slot)) {
            if (keys[slot] == key) return &counts[slot];
            if (keys[slot] == NO_KEY) return nullptr;
        }
    }

    template <class Function> __device__ void for_each(u32 rank, u32 size, Function function) const {
        for (u32 slot = rank; slot < slots; slot += size) {
            if (keys[slot] != NO_KEY) function(keys[slot], counts[slot]);
        }
    }

private:
    // Multiplicative hashing: the high bits of the product.
    __device__ u32 first_slot(u32 key) const { return __umulhi(key * 0x9e3779b1u, slots); }

    __device__ u32 next(u32 slot) const { return slot + 1 == slots ? 0 : slot + 1; }

    // Whether the slot has the key, or was free and gets it.
    __device__ bool claim(u32 slot, u32 key) const {
        u32 found = *(volatile u32*)&keys[slot];
        if (found == NO_KEY) found = atomicCAS(&keys[slot], NO_KEY, key);
        return found == NO_KEY || found == key;
    }
};

#endif
