/* CRC-32C (Castagnoli) of the log's records and of snapshot files. */
#ifndef RAFTWAL_CRC32C_H
#define RAFTWAL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Once, before the first call of the others: makes the tables and looks at the processor. */
void crc32c_prepare(void);

/* The CRC of what `crc` covers, followed by `size` bytes of `data`. */
uint32_t crc32c_extend(uint32_t crc, const uint8_t *data, size_t size);

/* The same, by tables alone. */
uint32_t crc32c_extend_by_tables(uint32_t crc, const uint8_t *data, size_t size);

/* How crc32c_extend computes it here: by which instructions, or by tables. */
const char *crc32c_method(void);

#endif
