/* Entries as Python holds them, and the framed records that a log holds: what the two native
 * parts share.
 */

#ifndef RAFTWAL_ENCODING_H
#define RAFTWAL_ENCODING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "crc32c.h"

#define LENGTH_FIELD_BYTES 8
#define RECORD_OF_AN_ENTRY 2
#define RECORD_OF_A_HARD_STATE 3
#define LAST_ENTRY_TYPE 2
/* Length field; type, checksum and length of the data with their tags; padding. */
#define MOST_BYTES_AROUND_DATA (LENGTH_FIELD_BYTES + 2 + 6 + 11 + 7)
/* Type, term and index with their tags; tag and length of the data. */
#define MOST_BYTES_BEFORE_DATA (2 + 11 + 11 + 11)

typedef struct {
    uint64_t term;
    uint64_t index;
    /* NULL for none. */
    const char *data;
    Py_ssize_t size;
    uint8_t type;
} Entry;

/* A list or a tuple. */
static inline PyObject *
item_of(PyObject *sequence, Py_ssize_t position)
{
    return PyList_Check(sequence) ? PyList_GetItem(sequence, position)
                                  : PyTuple_GetItem(sequence, position);
}

/* The length, or -1 for what is neither a list nor a tuple. */
static inline Py_ssize_t
length_of(PyObject *sequence)
{
    if (PyList_Check(sequence)) {
        return PyList_Size(sequence);
    }
    return PyTuple_Check(sequence) ? PyTuple_Size(sequence) : -1;
}

/* Without an exception for a number that does not fit: before Python 3.12, one that is made can have
 * garbage collected, and so any code run, and the tail reads entries under its mutex. */
static inline int
read_number(PyObject *object, uint64_t *number)
{
    if (object == NULL || !PyLong_Check(object)) {
        return 0;
    }
    int overflow;
    long long small = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0) {
        *number = (uint64_t)small;
        return small >= 0;
    }
    if (overflow < 0 || !PyLong_CheckExact(object)) {
        return 0;
    }
    *number = PyLong_AsUnsignedLongLongMask(object);
    PyObject *same = PyLong_FromUnsignedLongLong(*number);
    int is_same = same != NULL && PyObject_RichCompareBool(object, same, Py_EQ) == 1;
    Py_XDECREF(same);
    if (PyErr_Occurred()) {
        PyErr_Clear();
    }
    return is_same;
}

/* Whether `object` is an entry of the usual kind. */
static inline int
read_entry(PyObject *object, Entry *entry)
{
    if (object == NULL || !PyTuple_Check(object) || PyTuple_Size(object) != 4) {
        return 0;
    }
    uint64_t type;
    if (!read_number(PyTuple_GetItem(object, 0), &entry->term) ||
        !read_number(PyTuple_GetItem(object, 1), &entry->index) ||
        !read_number(PyTuple_GetItem(object, 3), &type) || type > LAST_ENTRY_TYPE) {
        return 0;
    }
    entry->type = (uint8_t)type;
    PyObject *data = PyTuple_GetItem(object, 2);
    if (data == Py_None) {
        entry->data = NULL;
        entry->size = 0;
        return 1;
    }
    if (data == NULL || !PyBytes_CheckExact(data)) {
        return 0;
    }
    entry->data = PyBytes_AsString(data);
    entry->size = PyBytes_Size(data);
    return 1;
}

static inline uint8_t *
write_varint(uint8_t *at, uint64_t number)
{
    while (number > 0x7f) {
        *at++ = (uint8_t)(number | 0x80);
        number >>= 7;
    }
    *at++ = (uint8_t)number;
    return at;
}

static inline void
write_little_endian(uint8_t *at, uint64_t value)
{
    for (int byte = 0; byte < 8; byte++) {
        at[byte] = (uint8_t)(value >> 8 * byte);
    }
}

static inline uint8_t *
write_head_of_entry(uint8_t *at, const Entry *entry)
{
    *at++ = 0x08;
    *at++ = entry->type;
    *at++ = 0x10;
    at = write_varint(at, entry->term);
    *at++ = 0x18;
    at = write_varint(at, entry->index);
    if (entry->data != NULL) {
        *at++ = 0x22;
        at = write_varint(at, (uint64_t)entry->size);
    }
    return at;
}

/* What a record of an entry has before the entry's data: its size, and the chain's value behind
 * the record.  The padding, zeros, comes behind the data. */
typedef struct {
    uint8_t bytes[MOST_BYTES_AROUND_DATA + MOST_BYTES_BEFORE_DATA];
    size_t size;
    size_t padding;
} Head;

/* `head` is what the record's payload begins with, `data_bytes` how much of it follows. */
static inline void
frame_head(Head *made, uint8_t record_type, const uint8_t *head, size_t head_bytes,
           size_t data_bytes, uint32_t chain)
{
    uint8_t *record = made->bytes + LENGTH_FIELD_BYTES;
    uint8_t *next = record;
    *next++ = 0x08;
    *next++ = record_type;
    *next++ = 0x10;
    next = write_varint(next, chain);
    *next++ = 0x1a;
    next = write_varint(next, head_bytes + data_bytes);
    memcpy(next, head, head_bytes);
    next += head_bytes;
    uint64_t length = (uint64_t)(next - record) + (uint64_t)data_bytes;
    uint64_t padding = -length & 7;
    write_little_endian(made->bytes, padding ? length | (0x80 | padding) << 56 : length);
    made->size = (size_t)(next - made->bytes);
    made->padding = (size_t)padding;
}

static inline void
make_head(Head *made, const Entry *entry, uint32_t *crc)
{
    uint8_t head[MOST_BYTES_BEFORE_DATA];
    size_t head_bytes = (size_t)(write_head_of_entry(head, entry) - head);
    uint32_t chain = crc32c_extend(*crc, head, head_bytes);
    if (entry->size > 0) {
        chain = crc32c_extend(chain, (const uint8_t *)entry->data, (size_t)entry->size);
    }
    *crc = chain;
    frame_head(made, RECORD_OF_AN_ENTRY, head, head_bytes, (size_t)entry->size, chain);
}

/* One framed record, and the chain's value behind it. */
static inline uint8_t *
write_frame(uint8_t *at, const Entry *entry, uint32_t *crc)
{
    Head head;
    make_head(&head, entry, crc);
    memcpy(at, head.bytes, head.size);
    at += head.size;
    if (entry->size > 0) {
        memcpy(at, entry->data, (size_t)entry->size);
        at += entry->size;
    }
    memset(at, 0, head.padding);
    return at + head.padding;
}

#endif
