// The best matches of names in a list. scores.rs has the same scores on the CPU, and cuda.rs the host code.
//
// A warp takes 32 names of the list and compares each pattern of its group with them. First it computes how many
// characters two names can have in common at most, of the signatures of the two: some 20 instructions a pair. `needed`
// says how many it takes to reach the query's threshold. Pairs that may reach it are collected, and scored when there
// are 32 of them, so that all lanes work although few pairs of a name pass. Characters of patterns are bits of a word:
// Myers, *A fast bit-vector algorithm for approximate string matching based on dynamic programming* (1999), and Hyyro,
// *Bit-parallel LCS-length computation revisited* (2004).
//
// Hits are appended in any order to an array of each query. `names_select` merges them with the best matches that the
// query has kept so far, sorts them, and raises the threshold to the score of the last one once there are enough, so that
// the next launch scores fewer pairs. The output does not depend on the order in which hits were appended.

#include "cancel.cuh"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 THREADS = 256;
constexpr u32 WARP = 32;
constexpr u32 WARPS = THREADS / WARP;
// Numbers that cuda.rs has as well.
constexpr u32 GROUP = 32;             // patterns that a block compares with each name
constexpr u32 COMMON = 64;            // codes of characters whose masks are in a table
constexpr u32 MAX_LENGTH = 64;        // characters of a pattern or a name
constexpr u32 LENGTHS = MAX_LENGTH + 1;
constexpr u32 MAX_PREFIX = 4;
constexpr u32 NEEDED = LENGTHS * (MAX_PREFIX + 1); // by prefix and length of a name
constexpr u32 IMPOSSIBLE = 255;
constexpr u32 MAX_K = 1024;
constexpr u32 SORTED = 2 * MAX_K;     // entries that a block sorts

enum Scorer { JARO_WINKLER, EDIT, RATIO, TOKEN_SET };

// A name of a query, as it is compared. The layout is that of cuda.rs.
struct Pattern {
    u64 signature[2];
    u64 prefix;           // its first four codes
    u64 token_signature;
    u32 length;
    u32 query;
    u32 first_rare, num_rare;     // characters whose masks are not in the table
    u32 first_token, num_tokens;
    u32 unused[2];
};

struct NameArrays {
    const u32* offsets;           // where each name starts in codes
    const u16* codes;
    const ulonglong2* signatures;
    const u64* keys;              // entry << 32 | index of the name in its entry
    const u32* set_lengths;       // without repeated tokens
    const u32* token_offsets;
    const u32* tokens;
    const u64* token_signatures;
    u32 space;                    // the code of a space
};

struct PatternArrays {
    const Pattern* patterns;
    const u64* masks;             // COMMON of each pattern
    const u32* rare_codes;
    const u64* rare_masks;
    const u32* tokens;
    const u64* token_masks;       // the characters of each token and the space after it
    const u8* needed;             // NEEDED of each pattern
};

// What decides besides the name. A weight of 0 says that the query does not have the attribute.
struct Attributes {
    const double* weights;        // four of each query: name, date, country, type
    const u32* queries;           // three of each query: date, country, type
    const u32* entries;           // three of each entry, 0 where it does not have one
    u32 any;                      // whether there are any
};

struct Hits {
    u32 capacity;                 // of each query
    u32* counts;
    double* scores;
    u64* keys;
    const double* thresholds;
};

// ---------------------------------------------------------------------------------------------------- scores

// The similarity of two strings by an edit distance or bound of it. Divisions are long: they are one copy.
static __device__ __noinline__ double similarity(u32 distance, u32 most) {
    return __dsub_rn(1.0, __ddiv_rn((double)distance, (double)most));
}

static __device__ __noinline__ double jaro(u32 common, u32 transpositions, u32 m, u32 n) {
    if (common == 0) return 0.0;
    const double c = common;
    const double sum = __dadd_rn(__ddiv_rn(c, (double)m), __ddiv_rn(c, (double)n));
    return __ddiv_rn(__dadd_rn(sum, __ddiv_rn((double)(common - transpositions), c)), 3.0);
}

static __device__ double with_prefix(double similarity, u32 prefix) {
    if (similarity <= 0.7) return similarity;
    return __dadd_rn(similarity, __dmul_rn(__dmul_rn((double)prefix, 0.1), __dsub_rn(1.0, similarity)));
}

// The score that names of these lengths have at most, with this number of characters in common.
template <Scorer scorer> static __device__ double best_score(u32 common, u32 m, u32 n, u32 prefix) {
    if (scorer == JARO_WINKLER) return with_prefix(jaro(common, 0, m, n), prefix);
    if (scorer == EDIT) return similarity(max(m, n) - common, max(m, n));
    return similarity(m + n - 2 * common, m + n);
}

// Levenshtein's distance of a pattern of m characters and n codes.
template <class Masks> static __device__ u32 levenshtein(u32 m, const u16* codes, u32 n, Masks masks) {
    u64 vp = ~0ull, vn = 0;
    u32 distance = m;
#pragma unroll 1
    for (u32 j = 0; j < n; j++) {
        const u64 matches = masks(codes[j]);
        const u64 d0 = (((matches & vp) + vp) ^ vp) | matches | vn;
        u64 hp = vn | ~(d0 | vp);
        u64 hn = d0 & vp;
        distance += (u32)(hp >> (m - 1)) & 1;
        distance -= (u32)(hn >> (m - 1)) & 1;
        hp = hp << 1 | 1;
        hn <<= 1;
        vp = hn | ~(d0 | hp);
        vn = hp & d0;
    }
    return distance;
}

// One step for the length of the longest common subsequence, which is the number of zeros of `state` in the end.
static __device__ void lcs_step(u64& state, u64 matches) {
    const u64 both = state & matches;
    state = (state + both) | (state - both);
}

template <class Masks> static __device__ double jaro_winkler(u32 m, const u16* codes, u32 n, u32 prefix, Masks masks) {
    const u32 half = max(m, n) / 2;
    const u32 bound = half > 0 ? half - 1 : 0;
    u64 window = bound >= 63 ? ~0ull : (2ull << bound) - 1;
    u64 of_pattern = 0, of_name = 0;
    const u32 end = min(n, m + bound);
#pragma unroll 1
    for (u32 j = 0; j < end; j++) {
        const u64 matches = masks(codes[j]) & window & ~of_pattern;
        of_pattern |= matches & (0 - matches);
        of_name |= (u64)(matches != 0) << j;
        window = window << 1 | (j < bound ? 1 : 0);
    }
    const u32 common = __popcll(of_pattern);
    u32 differing = 0;
    while (of_name != 0) {
        const u64 bit = of_pattern & (0 - of_pattern);
        differing += (masks(codes[__ffsll(of_name) - 1]) & bit) == 0;
        of_pattern ^= bit;
        of_name &= of_name - 1;
    }
    return with_prefix(jaro(common, differing / 2, m, n), prefix);
}

template <class Masks>
static __device__ double ratio(u32 m, const u16* codes, u32 n, Masks masks) {
    u64 state = ~0ull;
#pragma unroll 1
    for (u32 j = 0; j < n; j++) lcs_step(state, masks(codes[j]));
    return similarity(m + n - 2 * __popcll(~state), m + n);
}

// token_set_ratio: of the tokens that both have, with those of one or the other.
template <class Masks>
static __device__ double token_set(
    const Pattern& pattern, const u32* pattern_tokens, const u64* token_masks, u32 name, const NameArrays& names,
    Masks masks) {
    const u16* codes = names.codes + names.offsets[name];
    const u32 length = names.offsets[name + 1] - names.offsets[name];
    const u32* tokens = names.tokens + names.token_offsets[name];
    const u32 num_tokens = names.token_offsets[name + 1] - names.token_offsets[name];
    // The tokens of the pattern that the name has as well.
    u32 shared = 0;
#pragma unroll 1
    for (u32 t = 0; t < pattern.num_tokens; t++) {
#pragma unroll 1
        for (u32 other = 0; other < num_tokens; other++) {
            if (tokens[other] == pattern_tokens[t]) shared |= 1u << t;
        }
    }
    // The characters of the others, joined. Those of the pattern by a mask: what is not in it matches nothing, which is
    // as good as not there.
    u64 kept = 0;
    u32 shared_tokens = 0, shared_length = 0;
#pragma unroll 1
    for (u32 t = 0; t < pattern.num_tokens; t++) {
        const bool is_last = t + 1 == pattern.num_tokens;
        if (shared >> t & 1) {
            shared_tokens++;
            shared_length += __popcll(token_masks[t]) - (is_last ? 0 : 1);
        } else {
            kept |= token_masks[t];
        }
    }
    // The space after the last of them.
    if (kept != 0 && (shared >> (pattern.num_tokens - 1) & 1)) kept ^= 1ull << (63 - __clzll(kept));
    shared_length += shared_tokens > 1 ? shared_tokens - 1 : 0;
    const u32 m = __popcll(kept);

    u64 state = ~0ull;
    u32 n = 0, start = 0;
#pragma unroll 1
    for (u32 t = 0; t < num_tokens; t++) {
        u32 end = start;
#pragma unroll 1
        while (end < length && codes[end] != names.space) end++;
        bool skip = t > 0 && tokens[t] == tokens[t - 1];
#pragma unroll 1
        for (u32 other = 0; other < pattern.num_tokens; other++) skip = skip || pattern_tokens[other] == tokens[t];
        if (!skip) {
            if (n > 0) {
                lcs_step(state, masks(names.space) & kept);
                n++;
            }
#pragma unroll 1
            for (u32 j = start; j < end; j++) lcs_step(state, masks(codes[j]) & kept);
            n += end - start;
        }
        start = end + 1;
    }
    if (shared_tokens > 0 && (m == 0 || n == 0)) return 1.0;
    const u32 gap = shared_tokens > 0 ? 1 : 0;
    const u32 a = shared_length + gap + m, b = shared_length + gap + n;
    const double whole = similarity(m + n - 2 * __popcll(~state), a + b);
    if (shared_tokens == 0) return whole;
    return fmax(whole, fmax(similarity(gap + m, shared_length + a), similarity(gap + n, shared_length + b)));
}

static __device__ double agreement(double sum, double weight, double value) {
    return __dadd_rn(sum, __dmul_rn(weight, value));
}

// The weighted mean of the name's score and the agreement of the attributes that both have.
static __device__ __noinline__ double combine(double score, u32 query, u32 entry, const Attributes& attributes) {
    const double* weights = attributes.weights + 4 * query;
    if (weights[1] == 0.0 && weights[2] == 0.0 && weights[3] == 0.0) return score;
    const u32* ours = attributes.queries + 3 * query;
    const u32* theirs = attributes.entries + 3 * (u64)entry;
    double sum = agreement(0.0, weights[0], score), total = weights[0];
#pragma unroll 1
    for (u32 a = 0; a < 3; a++) {
        if (weights[a + 1] == 0.0 || theirs[a] == 0) continue;
        const bool is_same_year = a == 0 && ours[a] / 10000 == theirs[a] / 10000;
        sum = agreement(sum, weights[a + 1], ours[a] == theirs[a] ? 1.0 : is_same_year ? 0.5 : 0.0);
        total = __dadd_rn(total, weights[a + 1]);
    }
    return __ddiv_rn(sum, total);
}

// -------------------------------------------------------------------------------------------- search in a list

struct Group {
    u64 masks[GROUP][COMMON];
    Pattern patterns[GROUP];
    u8 needed[GROUP][NEEDED];
    u32 pairs[WARPS][2 * WARP];
};

template <Scorer scorer>
static __device__ void score_pair(
    u32 pair, u32 first_name, const Group& group, const NameArrays& names, const PatternArrays& patterns,
    const Attributes& attributes, const Hits& hits) {
    const u32 slot = pair % GROUP, name = first_name + pair / GROUP;
    const Pattern& pattern = group.patterns[slot];
    const auto masks = [&](u32 code) -> u64 {
        if (code < COMMON) return group.masks[slot][code];
#pragma unroll 1
        for (u32 i = pattern.first_rare; i < pattern.first_rare + pattern.num_rare; i++) {
            if (patterns.rare_codes[i] == code) return patterns.rare_masks[i];
        }
        return 0;
    };
    const u16* codes = names.codes + names.offsets[name];
    const u32 length = names.offsets[name + 1] - names.offsets[name];
    double score;
    if (scorer == JARO_WINKLER) {
        u32 prefix = 0;
        while (prefix < min(length, MAX_PREFIX) && codes[prefix] == (u16)(pattern.prefix >> 16 * prefix)) prefix++;
        score = jaro_winkler(pattern.length, codes, length, prefix, masks);
    } else if (scorer == EDIT) {
        score = similarity(levenshtein(pattern.length, codes, length, masks), max(pattern.length, length));
    } else if (scorer == RATIO) {
        score = ratio(pattern.length, codes, length, masks);
    } else {
        const u32* tokens = patterns.tokens + pattern.first_token;
        score = token_set(pattern, tokens, patterns.token_masks + pattern.first_token, name, names, masks);
    }
    const u32 query = pattern.query;
    const u64 key = names.keys[name];
    if (attributes.any) score = combine(score, query, (u32)(key >> 32), attributes);
    if (score < hits.thresholds[query]) return;
    const u64 at = (u64)query * hits.capacity + atomicAdd(&hits.counts[query], 1);
    hits.scores[at] = score;
    hits.keys[at] = key;
}

template <Scorer scorer>
static __device__ void search(
    u32 first_name, u32 end_name, u32 num_patterns, const NameArrays& names, const PatternArrays& patterns,
    const Attributes& attributes, const Hits& hits) {
    __shared__ Group group;
    const u32 first = blockIdx.y * GROUP, count = min(GROUP, num_patterns - first);
#pragma unroll 1
    for (u32 i = threadIdx.x; i < count * COMMON; i += THREADS) {
        group.masks[i / COMMON][i % COMMON] = patterns.masks[(u64)first * COMMON + i];
    }
#pragma unroll 1
    for (u32 i = threadIdx.x; i < count; i += THREADS) group.patterns[i] = patterns.patterns[first + i];
#pragma unroll 1
    for (u32 i = threadIdx.x; i < count * NEEDED; i += THREADS) {
        group.needed[i / NEEDED][i % NEEDED] = patterns.needed[(u64)first * NEEDED + i];
    }
    __syncthreads();
    const u32 lane = threadIdx.x % WARP;
    u32* pairs = group.pairs[threadIdx.x / WARP];
    u32 collected = 0;
    // After the last names comes a turn without any, in which the rest is scored, so that the code of that is one copy.
    bool is_rest = false;
    for (u64 base = first_name + (u64)blockIdx.x * THREADS; !is_rest; base += (u64)gridDim.x * THREADS) {
        is_rest = base >= end_name;
        const u32 name = base + threadIdx.x;
        const bool is_name = !is_rest && name < end_name;
        ulonglong2 signature = {0, 0};
        u32 full_length = 0, length = 0;
        u64 start = ~0ull, token_signature = 0;
        if (is_name) {
            signature = names.signatures[name];
            const u32 offset = names.offsets[name];
            length = full_length = names.offsets[name + 1] - offset;
            if (scorer == JARO_WINKLER) {
                for (u32 i = 0; i < min(length, MAX_PREFIX); i++) {
                    start ^= (u64)(u16)~names.codes[offset + i] << 16 * i;
                }
            }
            if (scorer == TOKEN_SET) {
                length = names.set_lengths[name];
                token_signature = names.token_signatures[name];
            }
        }
#pragma unroll 1
        for (u32 slot = 0; slot < (is_rest ? 1 : count); slot++) {
            const Pattern& pattern = group.patterns[slot];
            const u32 only_name =
                __popcll(signature.x & ~pattern.signature[0]) + __popcll(signature.y & ~pattern.signature[1]);
            const u32 only_pattern =
                __popcll(pattern.signature[0] & ~signature.x) + __popcll(pattern.signature[1] & ~signature.y);
            const u32 common = min(full_length - only_name, pattern.length - only_pattern);
            u32 prefix = 0;
            if (scorer == JARO_WINKLER) {
                const u64 differs = start ^ pattern.prefix;
                prefix = differs == 0 ? MAX_PREFIX : (__ffsll(differs) - 1) / 16;
            }
            bool may_hit = common >= group.needed[slot][prefix * LENGTHS + length];
            if (scorer == TOKEN_SET) may_hit = may_hit || (token_signature & pattern.token_signature) != 0;
            may_hit = may_hit && is_name;
            const u32 ballot = __ballot_sync(~0u, may_hit);
            if (may_hit) {
                pairs[collected + __popc(ballot & ((1u << lane) - 1))] = (name - first_name) * GROUP + slot;
            }
            collected += __popc(ballot);
            if (collected < WARP && !is_rest) continue;
            const u32 from = collected < WARP ? 0 : collected - WARP;
            __syncwarp();
            if (from + lane < collected) {
                score_pair<scorer>(pairs[from + lane], first_name, group, names, patterns, attributes, hits);
            }
            __syncwarp();
            collected = from;
        }
    }
}

#define SEARCH(entry, scorer) \
    extern "C" __global__ void __launch_bounds__(THREADS) entry( \
        u32 first_name, u32 end_name, u32 num_patterns, const u32* offsets, const u16* codes, \
        const ulonglong2* signatures, const u64* keys, const u32* set_lengths, const u32* token_offsets, \
        const u32* tokens, const u64* token_signatures, u32 space, const Pattern* patterns, const u64* masks, \
        const u32* rare_codes, const u64* rare_masks, const u32* pattern_tokens, const u64* token_masks, \
        const u8* needed, const double* weights, const u32* query_attributes, const u32* entry_attributes, u32 any, \
        u32 capacity, u32* counts, double* scores, u64* hit_keys, const double* thresholds, \
        const volatile u32* flag, u32* cancelled) { \
        if (is_cancelled({flag, cancelled})) return; \
        search<scorer>(first_name, end_name, num_patterns, \
            {offsets, codes, signatures, keys, set_lengths, token_offsets, tokens, token_signatures, space}, \
            {patterns, masks, rare_codes, rare_masks, pattern_tokens, token_masks, needed}, \
            {weights, query_attributes, entry_attributes, any}, {capacity, counts, scores, hit_keys, thresholds}); \
    }

SEARCH(names_jaro_winkler, JARO_WINKLER)
SEARCH(names_edit, EDIT)
SEARCH(names_ratio, RATIO)
SEARCH(names_token_set, TOKEN_SET)

// ------------------------------------------------------------------------------------- best matches of a query

struct Kept {
    double scores[SORTED];
    u64 keys[SORTED];
    u32 count;
    u32 valid;
};

// What pads the entries that are sorted: after all others, in either order.
constexpr double NO_SCORE = -1.0;
constexpr u64 NO_KEY = ~0ull;

// By entry, the best first.
struct ByEntry {
    static __device__ bool is_before(double a, u64 key_a, double b, u64 key_b) {
        const u32 entry_a = key_a >> 32, entry_b = key_b >> 32;
        return entry_a != entry_b ? entry_a < entry_b : a != b ? a > b : key_a < key_b;
    }
};

// Best first.
struct ByScore {
    static __device__ bool is_before(double a, u64 key_a, double b, u64 key_b) {
        return a != b ? a > b : key_a < key_b;
    }
};

// Bitonic sort of the first `size` entries, a power of two.
template <class Order> static __device__ __noinline__ void sort(Kept& kept, u32 size) {
#pragma unroll 1
    for (u32 run = 2; run <= size; run *= 2) {
#pragma unroll 1
        for (u32 stride = run / 2; stride > 0; stride /= 2) {
#pragma unroll 1
            for (u32 i = threadIdx.x; i < size / 2; i += THREADS) {
                const u32 a = i / stride * 2 * stride + i % stride, b = a + stride;
                const bool ascending = (a & run) == 0;
                const double score_a = kept.scores[a], score_b = kept.scores[b];
                const u64 key_a = kept.keys[a], key_b = kept.keys[b];
                if (Order::is_before(score_b, key_b, score_a, key_a) == ascending) {
                    kept.scores[a] = score_b, kept.scores[b] = score_a;
                    kept.keys[a] = key_b, kept.keys[b] = key_a;
                }
            }
            __syncthreads();
        }
    }
}

// Sorts the collected hits and keeps the best of each entry, and the best k entries.
static __device__ __noinline__ void keep_best(Kept& kept, u32 k) {
    u32 size = 2;
    while (size < kept.count) size *= 2;
#pragma unroll 1
    for (u32 i = kept.count + threadIdx.x; i < size; i += THREADS) kept.scores[i] = NO_SCORE, kept.keys[i] = NO_KEY;
    __syncthreads();
    sort<ByEntry>(kept, size);
    u32 repeated = 0;
#pragma unroll 1
    for (u32 i = threadIdx.x, bit = 0; i < size; i += THREADS, bit++) {
        if (i > 0 && kept.keys[i] >> 32 == kept.keys[i - 1] >> 32) repeated |= 1u << bit;
    }
    if (threadIdx.x == 0) kept.valid = 0;
    __syncthreads();
    u32 valid = 0;
#pragma unroll 1
    for (u32 i = threadIdx.x, bit = 0; i < size; i += THREADS, bit++) {
        if (repeated >> bit & 1) kept.scores[i] = NO_SCORE, kept.keys[i] = NO_KEY;
        valid += kept.keys[i] != NO_KEY;
    }
    if (valid > 0) atomicAdd(&kept.valid, valid);
    __syncthreads();
    sort<ByScore>(kept, size);
    if (threadIdx.x == 0) kept.count = min(kept.valid, k);
    __syncthreads();
}

// How many characters a name of each length and prefix must have in common with the pattern to reach the threshold.
template <Scorer scorer> static __device__ void fill_needed(const Pattern& pattern, double threshold, u8* needed) {
#pragma unroll 1
    for (u32 i = threadIdx.x; i < NEEDED; i += THREADS) {
        const u32 prefix = i / LENGTHS, length = i % LENGTHS;
        const u32 most = min(pattern.length, length);
        u32 common = 0;
        while (length > 0 && common <= most && best_score<scorer>(common, pattern.length, length, prefix) < threshold) {
            common++;
        }
        needed[i] = length > 0 && common <= most ? common : IMPOSSIBLE;
    }
}

// A score must be lower than what is compared with it by this much to be lower without rounding.
constexpr double ROUNDING = 1e-9;

// Merges the hits of a launch into the best matches of each query, one a block. `is_first` computes `needed` in any case.
extern "C" __global__ void __launch_bounds__(THREADS) names_select(
    u32 is_first, u32 scorer, u32 k, u32 capacity, u32* counts, const double* scores, const u64* keys, u32* kept_counts,
    double* kept_scores, u64* kept_keys, double* thresholds, const double* weights, const u32* pattern_offsets,
    const Pattern* patterns, u8* needed, const volatile u32* cancelled) {
    __shared__ Kept kept;
    __shared__ u32 stops;
    const u32 query = blockIdx.x, num_hits = counts[query];
    if (threadIdx.x == 0) stops = *cancelled;
    if (num_hits == 0 && !is_first) return;
    const u32 num_kept = kept_counts[query];
#pragma unroll 1
    for (u32 i = threadIdx.x; i < num_kept; i += THREADS) {
        kept.scores[i] = kept_scores[(u64)query * k + i];
        kept.keys[i] = kept_keys[(u64)query * k + i];
    }
    if (threadIdx.x == 0) kept.count = num_kept;
    __syncthreads();
    double threshold = thresholds[query];
    for (u32 done = 0; done < num_hits && stops == 0;) {
        // As many as there is room for.
        const u32 end = min(num_hits, done + SORTED - kept.count);
        __syncthreads();
#pragma unroll 1
        for (u32 i = done + threadIdx.x; i < end; i += THREADS) {
            const double score = scores[(u64)query * capacity + i];
            if (score < threshold) continue;
            const u32 at = atomicAdd(&kept.count, 1);
            kept.scores[at] = score;
            kept.keys[at] = keys[(u64)query * capacity + i];
        }
        if (threadIdx.x == 0) stops = *cancelled;
        done = end;
        __syncthreads();
        if (kept.count > k && (done == num_hits || kept.count > SORTED - MAX_K / 2)) {
            keep_best(kept, k);
            if (kept.count == k) threshold = fmax(threshold, kept.scores[k - 1]);
        }
        __syncthreads();
    }
    // Also where there are too few to raise the threshold: they are sorted, and an entry is one of them once.
    if (num_hits > 0) {
        keep_best(kept, k);
        if (kept.count == k) threshold = fmax(threshold, kept.scores[k - 1]);
    }
#pragma unroll 1
    for (u32 i = threadIdx.x; i < kept.count; i += THREADS) {
        kept_scores[(u64)query * k + i] = kept.scores[i];
        kept_keys[(u64)query * k + i] = kept.keys[i];
    }
    const bool is_raised = threshold > thresholds[query];
    __syncthreads();
    if (threadIdx.x == 0) {
        counts[query] = 0;
        kept_counts[query] = kept.count;
        thresholds[query] = threshold;
    }
    if (!is_raised && !is_first) return;
    // The name's score where all attributes agree that the query has.
    const double* of_query = weights + 4 * query;
    const double others = (of_query[1] + of_query[2] + of_query[3]) / of_query[0];
    const double of_name = threshold - (1.0 - threshold) * others - ROUNDING;
    for (u32 p = pattern_offsets[query]; p < pattern_offsets[query + 1]; p++) {
        u8* of_pattern = needed + (u64)p * NEEDED;
        if (scorer == JARO_WINKLER) fill_needed<JARO_WINKLER>(patterns[p], of_name, of_pattern);
        else if (scorer == EDIT) fill_needed<EDIT>(patterns[p], of_name, of_pattern);
        else fill_needed<RATIO>(patterns[p], of_name, of_pattern);
    }
}
