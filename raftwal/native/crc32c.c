/* CRC-32C with the processor's own instruction, where it has one.
 *
 * The instruction takes 8 bytes and gives its result 3 cycles later, but a new one can begin
 * in every cycle.  So three streams of the data are taken side by side.  Each stream's CRC is
 * then moved over the bytes behind it: that is a multiplication by x^(8 n) modulo the
 * polynomial, for n bytes, and one carry-less multiplication and one CRC instruction do it.
 */

#include "crc32c.h"

#include <string.h>

/* Castagnoli's polynomial, bits reversed: as every number here. */
#define POLYNOMIAL 0x82F63B78u

static uint32_t tables[8][256];

static uint32_t
times_x(uint32_t polynomial)
{
    return polynomial >> 1 ^ (polynomial & 1 ? POLYNOMIAL : 0);
}

static void
make_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = times_x(crc);
        }
        tables[0][byte] = crc;
    }
    for (int bytes_behind = 1; bytes_behind < 8; bytes_behind++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = tables[bytes_behind - 1][byte];
            tables[bytes_behind][byte] = crc >> 8 ^ tables[0][crc & 0xff];
        }
    }
}

uint32_t
crc32c_extend_by_tables(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        /* Byte by byte, so that the processor's byte order does not matter. */
        crc = tables[7][(crc ^ data[0]) & 0xff] ^ tables[6][(crc >> 8 ^ data[1]) & 0xff] ^
              tables[5][(crc >> 16 ^ data[2]) & 0xff] ^ tables[4][(crc >> 24 ^ data[3]) & 0xff] ^
              tables[3][data[4]] ^ tables[2][data[5]] ^ tables[1][data[6]] ^ tables[0][data[7]];
    }
    for (; size > 0; data++, size--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *data) & 0xff];
    }
    return ~crc;
}

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <cpuid.h>
#include <immintrin.h>

#if defined(__clang__) && __clang_major__ >= 14
/* Which has the instruction apart from the others of SSE 4.2. */
#define WITH_CRC __attribute__((target("sse4.2,crc32,pclmul")))
#else
#define WITH_CRC __attribute__((target("sse4.2,pclmul")))
#endif
#define METHOD "SSE 4.2 and PCLMULQDQ"
#define WORD_BYTES 8
#define WORDS_PER_LINE 8
#define AHEAD_BYTES (6 * MOST_WORDS * WORD_BYTES)
/* Longer streams would save little: moving a CRC costs some ten cycles. */
#define MOST_WORDS 128
/* Below this, one stream is as fast. */
#define LEAST_WORDS 3

/* moves[n] moves a CRC over n words. */
static uint32_t moves[2 * MOST_WORDS + 1];

static void
make_moves(void)
{
    /* The multiplication of two reversed numbers gives one factor of x, and the CRC of the
     * product 32 more: of the x^(64 n), 33 are taken off.  x^31 reversed is 1. */
    uint32_t move = 1;
    for (int words = 1; words <= 2 * MOST_WORDS; words++) {
        moves[words] = move;
        for (int bit = 0; bit < 8 * WORD_BYTES; bit++) {
            move = times_x(move);
        }
    }
}

static inline uint64_t
word_at(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

WITH_CRC static inline uint64_t
product(uint64_t crc, uint32_t move)
{
    __m128i factors = _mm_clmulepi64_si128(
        _mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)move), 0);
    return (uint64_t)_mm_cvtsi128_si64(factors);
}

WITH_CRC static uint32_t
extend_by_instruction(uint32_t before, const uint8_t *data, size_t size)
{
    uint64_t crc = (uint32_t)~before;
    while (size >= 3 * LEAST_WORDS * WORD_BYTES) {
        size_t words = size / (3 * WORD_BYTES);
        if (words > MOST_WORDS) {
            words = MOST_WORDS;
        }
        const uint8_t *second = data + words * WORD_BYTES;
        const uint8_t *third = second + words * WORD_BYTES;
        uint64_t second_crc = 0;
        uint64_t third_crc = 0;
        for (size_t word = 0; word < words; word++) {
            if (words == MOST_WORDS && word % WORDS_PER_LINE == 0) {
                /* Three streams of a kilobyte are too short for the processor to foresee. */
                const uint8_t *ahead = data + AHEAD_BYTES + 3 * word * WORD_BYTES;
                __builtin_prefetch(ahead);
                __builtin_prefetch(ahead + WORDS_PER_LINE * WORD_BYTES);
                __builtin_prefetch(ahead + 2 * WORDS_PER_LINE * WORD_BYTES);
            }
            crc = _mm_crc32_u64(crc, word_at(data + word * WORD_BYTES));
            second_crc = _mm_crc32_u64(second_crc, word_at(second + word * WORD_BYTES));
            third_crc = _mm_crc32_u64(third_crc, word_at(third + word * WORD_BYTES));
        }
        uint64_t moved = product(crc, moves[2 * words]) ^ product(second_crc, moves[words]);
        crc = _mm_crc32_u64(0, moved) ^ third_crc;
        data = third + words * WORD_BYTES;
        size -= 3 * words * WORD_BYTES;
    }
    for (; size >= WORD_BYTES; data += WORD_BYTES, size -= WORD_BYTES) {
        crc = _mm_crc32_u64(crc, word_at(data));
    }
    uint32_t rest = (uint32_t)crc;
    if (size >= 4) {
        uint32_t half;
        memcpy(&half, data, sizeof half);
        rest = _mm_crc32_u32(rest, half);
        data += 4;
        size -= 4;
    }
    for (; size > 0; data++, size--) {
        rest = _mm_crc32_u8(rest, *data);
    }
    return ~rest;
}

static int
has_instruction(void)
{
    unsigned int eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_SSE4_2) && (ecx & bit_PCLMUL);
}

#elif defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))

#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

#if defined(__clang__)
#define WITH_CRC __attribute__((target("crc")))
#else
#define WITH_CRC __attribute__((target("+crc")))
#endif
#define METHOD "ARMv8 CRC32"

static void
make_moves(void)
{
}

WITH_CRC static uint32_t
extend_by_instruction(uint32_t crc, const uint8_t *data, size_t size)
{
    crc = ~crc;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        crc = __crc32cd(crc, word);
    }
    for (; size > 0; data++, size--) {
        crc = __crc32cb(crc, *data);
    }
    return ~crc;
}

static int
has_instruction(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
    /* Every 64-bit Apple processor has it. */
    return 1;
#endif
}

#else

#define METHOD ""

static void
make_moves(void)
{
}

static uint32_t
extend_by_instruction(uint32_t crc, const uint8_t *data, size_t size)
{
    return crc32c_extend_by_tables(crc, data, size);
}

static int
has_instruction(void)
{
    return 0;
}

#endif

static int uses_instruction;

void
crc32c_prepare(void)
{
    make_tables();
    make_moves();
    uses_instruction = has_instruction();
}

uint32_t
crc32c_extend(uint32_t crc, const uint8_t *data, size_t size)
{
    return uses_instruction ? extend_by_instruction(crc, data, size)
                            : crc32c_extend_by_tables(crc, data, size);
}

const char *
crc32c_method(void)
{
    return uses_instruction ? METHOD : "tables";
}
