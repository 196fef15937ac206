/* The queue of `Tail`: saves become framed records, behind those that wait to be written. */

#ifndef _WIN32

#include "encoding.h"
#include "tail_parts.h"

/* What one write may have. */
#define MOST_BYTES_OF_A_WRITE (4 << 20)
/* Large entries of which there are more than that are better not copied. */
#define MOST_BYTES_OF_LARGE_ENTRIES (1 << 18)
#define BYTES_OF_A_LARGE_ENTRY 4096
/* Commit indexes that wait for somebody else's sync. */
#define MOST_BYTES_NOT_AWAITED (1 << 16)
#define MOST_BYTES_OF_A_HARD_STATE sizeof(Head)

static int
have_room(Buffer *buffer, size_t bytes)
{
    size_t needed = buffer->size + bytes;
    if (needed <= buffer->capacity) {
        return 1;
    }
    size_t capacity = buffer->capacity ? buffer->capacity : 4096;
    while (capacity < needed) {
        capacity *= 2;
    }
    uint8_t *grown = realloc(buffer->bytes, capacity);
    if (grown == NULL) {
        return 0;
    }
    buffer->bytes = grown;
    buffer->capacity = capacity;
    return 1;
}

void
tail_put_hard_state(Tail *tail)
{
    uint8_t payload[3 * 11];
    uint8_t *next = payload;
    *next++ = 0x08;
    next = write_varint(next, tail->state.term);
    *next++ = 0x10;
    next = write_varint(next, tail->state.vote);
    *next++ = 0x18;
    next = write_varint(next, tail->state.commit);
    size_t bytes = (size_t)(next - payload);
    tail->crc = crc32c_extend(tail->crc, payload, bytes);
    Head head;
    frame_head(&head, RECORD_OF_A_HARD_STATE, payload, bytes, 0, tail->crc);
    uint8_t *at = tail->queued.bytes + tail->queued.size;
    memcpy(at, head.bytes, head.size);
    memset(at + head.size, 0, head.padding);
    tail->queued.size += head.size + head.padding;
}

/* Behind what else is queued. */
static int
put_entries(Tail *tail, PyObject *entries, Py_ssize_t count, size_t most)
{
    Buffer *queued = &tail->queued;
    size_t size_before = queued->size;
    uint32_t crc = tail->crc;
    uint64_t last_index = tail->last_index;
    uint64_t bytes = 0;
    for (Py_ssize_t position = 0; position < count; position++) {
        Entry entry;
        /* Terms that change, and entries that replace others, are for the reference. */
        if (!read_entry(item_of(entries, position), &entry) || entry.index != last_index + 1 ||
            entry.index == 0 || entry.index == UINT64_MAX || entry.term != tail->last_term ||
            (size_t)entry.size > most || queued->size + sizeof(Head) + (size_t)entry.size > most ||
            !have_room(queued, 2 * sizeof(Head) + (size_t)entry.size)) {
            PyErr_Clear();
            queued->size = size_before;
            return 0;
        }
        uint8_t *at = queued->bytes + queued->size;
        queued->size += (size_t)(write_frame(at, &entry, &crc) - at);
        bytes += (uint64_t)entry.size;
        if (bytes > MOST_BYTES_OF_LARGE_ENTRIES &&
            bytes / (uint64_t)(position + 1) >= BYTES_OF_A_LARGE_ENTRY) {
            queued->size = size_before;
            return 0;
        }
        last_index = entry.index;
    }
    tail->crc = crc;
    tail->last_index = last_index;
    tail->entries += (uint64_t)count;
    tail->has_entries = 1;
    return 1;
}

int
tail_read_state(Tail *tail, PyObject *object, State *state)
{
    if (object == Py_None) {
        return 0;
    }
    if ((PyObject *)Py_TYPE(object) != tail->hard_state_class || PyTuple_Size(object) != 3 ||
        !read_number(PyTuple_GetItem(object, 0), &state->term) ||
        !read_number(PyTuple_GetItem(object, 1), &state->vote) ||
        !read_number(PyTuple_GetItem(object, 2), &state->commit)) {
        PyErr_Clear();
        return -1;
    }
    return state->term != 0 || state->vote != 0 || state->commit != 0;
}

static int64_t
queue_locked(Tail *tail, int has_state, const State *state, PyObject *entries, Py_ssize_t count)
{
    if (tail->status != OPEN || (has_state && state->term < tail->lowest_term)) {
        return NOT_HERE;
    }
    uint64_t begin = tail->offset + tail->in_the_way;
    uint64_t end = tail->limit < tail->segment_bytes ? tail->limit : tail->segment_bytes;
    /* By etcd's rule a segment that reaches its size is cut. */
    size_t reserved = 2 * MOST_BYTES_OF_A_HARD_STATE + 1;
    if (end <= begin + reserved) {
        return NOT_HERE;
    }
    size_t most = end - begin - reserved > MOST_BYTES_OF_A_WRITE
                      ? MOST_BYTES_OF_A_WRITE
                      : (size_t)(end - begin - reserved);
    if (tail->queued.size > most || !have_room(&tail->queued, 2 * MOST_BYTES_OF_A_HARD_STATE) ||
        (count > 0 && !put_entries(tail, entries, count, most))) {
        return NOT_HERE;
    }
    int is_promise = count > 0;
    if (has_state) {
        is_promise |= state->term != tail->state.term || state->vote != tail->state.vote;
        tail->state = *state;
        tail->lowest_term = state->term;
        if (is_promise || tail->has_state || tail->has_entries) {
            tail->has_state = 1;
        }
        else {
            tail_put_hard_state(tail);
        }
    }
    tail->is_awaited |= is_promise;
    return is_promise ? (int64_t)tail->write : 0;
}

int64_t
tail_queue(Tail *tail, PyObject *hard_state, PyObject *entries)
{
    State state;
    int has_state = tail_read_state(tail, hard_state, &state);
    Py_ssize_t count = length_of(entries);
    if (has_state < 0 || count < 0) {
        return NOT_HERE;
    }
    pthread_mutex_lock(&tail->mutex);
    int64_t write;
    if (count == 0 && !has_state) {
        write = tail->status == OPEN ? 0 : NOT_HERE;
    }
    else if (count == 0 && !tail->is_awaited && tail->queued.size > MOST_BYTES_NOT_AWAITED) {
        write = NOT_HERE;
    }
    else {
        write = queue_locked(tail, has_state, &state, entries, count);
    }
    pthread_mutex_unlock(&tail->mutex);
    return write;
}

#endif
