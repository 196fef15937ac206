/* The end of a log that goes straight to a file: saves that need no more than to be put behind
 * what is there, written, and synced.
 *
 * Like the rest of the native twin it takes the usual case only; whatever else there is to do to
 * a log is done in Python, on a tail that was closed: see raftwal/wal/direct.py.
 *
 * Saves are queued by threads that hold the interpreter's lock, and written by threads that do
 * not: the first to wait leads, writes and syncs what all have queued, and has the first of those
 * who came meanwhile lead next. No thread needs the interpreter's lock for that.
 */

#include "tail.h"

#ifdef _WIN32

int
tail_prepare(PyObject *module)
{
    (void)module;
    return 0;
}

#else

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <structmember.h>
#include <time.h>
#include <unistd.h>

#include <pythread.h>

#include "encoding.h"
#include "write_back.h"

/* As much is written at once: see raftwal/fs.py. */
#define MOST_BYTES_AT_ONCE (1 << 19)
/* What one write may have, and what a log keeps in memory for the next. */
#define MOST_BYTES_OF_A_WRITE (4 << 20)
#define MOST_BYTES_KEPT (1 << 21)
/* Large entries of which there are more than that are better not copied. */
#define MOST_BYTES_OF_LARGE_ENTRIES (1 << 18)
#define BYTES_OF_A_LARGE_ENTRY 4096
/* Commit indexes that wait for somebody else's sync. */
#define MOST_BYTES_NOT_AWAITED (1 << 16)
#define MOST_BYTES_OF_A_HARD_STATE sizeof(Head)

enum { CLOSED, OPEN, FAILED };
enum { NO_CALL, WRITE_CALL, SYNC_CALL };

typedef struct {
    uint8_t *bytes;
    size_t size;
    size_t capacity;
} Buffer;

typedef struct {
    uint64_t term;
    uint64_t vote;
    uint64_t commit;
} State;

/* A thread that waits until its write is durable, or until it is the one to lead. */
typedef struct Waiter {
    /* Held until it need not wait. */
    PyThread_type_lock gate;
    int is_done;
    int is_durable;
    uint64_t write;
    struct Waiter *next;
} Waiter;

/* What whoever led has to tell. */
typedef struct {
    int led;
    size_t bytes;
    double write_seconds;
    double sync_seconds;
} Told;

typedef struct {
    PyObject_HEAD
    PyObject *hard_state_class;
    /* What this and the lock of the interpreter guard: nobody queues beside who reserved it. */
    int is_reserved;
    int is_ahead;
    int tells;
    /* Guards all below.  It is held for no call that waits, nor by anyone who waits for the
     * interpreter's lock. */
    pthread_mutex_t mutex;
    _Atomic int status;
    int fd;
    int syncs;
    uint64_t segment_bytes;
    uint64_t limit;
    /* The log with all that was queued. */
    uint64_t last_index;
    uint64_t last_term;
    uint64_t lowest_term;
    uint64_t entries;
    State state;
    uint32_t crc;
    /* The write that is queued, by its number. */
    uint64_t write;
    Buffer queued;
    int is_awaited;
    int has_entries;
    int has_state;
    /* The file. */
    int is_led;
    uint64_t offset;
    uint64_t in_the_way;
    double average;
    uint64_t durable;
    Buffer spare;
    Waiter *waiters;
    int error;
    int failed_call;
} Tail;

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

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

static void
drop(Buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (Buffer){0};
}

/* There has to be room for it. */
static void
put_hard_state(Tail *tail)
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

/* Whether there is a state; -1 for what only the reference can tell. */
static int
read_state(Tail *tail, PyObject *object, State *state)
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

#define NOT_HERE (-1)

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
            put_hard_state(tail);
        }
    }
    tail->is_awaited |= is_promise;
    return is_promise ? (int64_t)tail->write : 0;
}

/* The number of the write that makes it durable, 0 where none has to, or NOT_HERE. */
static int64_t
queue(Tail *tail, PyObject *hard_state, PyObject *entries)
{
    State state;
    int has_state = read_state(tail, hard_state, &state);
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

/* 0, or what went wrong.  A sync that follows finds the disk at work. */
static int
write_all(int fd, const uint8_t *bytes, size_t size, uint64_t offset, int sync_follows)
{
    while (size > 0) {
        size_t some = size < MOST_BYTES_AT_ONCE ? size : MOST_BYTES_AT_ONCE;
        ssize_t count = pwrite(fd, bytes, some, (off_t)offset);
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno;
        }
        if (count == 0) {
            return EIO;
        }
        bytes += count;
        size -= (size_t)count;
        if (sync_follows && size > 0) {
            int error = begin_write_back(fd, offset, (size_t)count);
            if (error != 0) {
                return error;
            }
        }
        offset += (uint64_t)count;
    }
    return 0;
}

static int
sync_data(int fd)
{
    int failed;
    do {
#ifdef F_FULLFSYNC
        /* fsync on macOS stops at the drive's cache. */
        failed = fcntl(fd, F_FULLFSYNC);
#else
        failed = fdatasync(fd);
#endif
    } while (failed < 0 && errno == EINTR);
    return failed < 0 ? errno : 0;
}

/* Takes those off the list who need not wait any more. */
static Waiter *
take_done(Tail *tail)
{
    Waiter *done = NULL;
    Waiter **last_done = &done;
    Waiter **left = &tail->waiters;
    while (*left != NULL) {
        Waiter *waiter = *left;
        if (tail->status != FAILED && waiter->write > tail->durable) {
            left = &waiter->next;
            continue;
        }
        *left = waiter->next;
        waiter->next = NULL;
        waiter->is_done = 1;
        waiter->is_durable = waiter->write <= tail->durable;
        *last_done = waiter;
        last_done = &waiter->next;
    }
    return done;
}

static void
let_go(Waiter *waiter)
{
    if (waiter != NULL) {
        PyThread_release_lock(waiter->gate);
    }
}

/* Write and sync what is queued; whether that is durable.  The mutex is held before, not behind it
 * nor when others are woken, who would have to wait for it. */
static int
lead(Tail *tail, Told *told)
{
    tail->is_led = 1;
    if (tail->has_state) {
        put_hard_state(tail);
    }
    Buffer taken = tail->queued;
    tail->queued = tail->spare;
    tail->queued.size = 0;
    tail->spare = (Buffer){0};
    tail->is_awaited = tail->has_entries = tail->has_state = 0;
    tail->in_the_way = taken.size;
    uint64_t number = tail->write++;
    uint64_t offset = tail->offset;
    int fd = tail->fd;
    int syncs = tail->syncs;
    pthread_mutex_unlock(&tail->mutex);

    double started = seconds_now();
    int call = WRITE_CALL;
    int error = write_all(fd, taken.bytes, taken.size, offset, syncs);
    double written = seconds_now();
    if (error == 0 && syncs) {
        call = SYNC_CALL;
        error = sync_data(fd);
    }
    told->led = 1;
    told->bytes = taken.size;
    told->write_seconds = written - started;
    told->sync_seconds = syncs ? seconds_now() - written : 0;

    pthread_mutex_lock(&tail->mutex);
    if (error != 0) {
        tail->status = FAILED;
        tail->error = error;
        tail->failed_call = call;
        if (call == SYNC_CALL) {
            tail->offset += taken.size;
        }
    }
    else {
        tail->durable = number;
        tail->offset += taken.size;
        tail->average += ((double)taken.size - tail->average) / 8;
        tail->in_the_way = 0;
    }
    if (taken.capacity > MOST_BYTES_KEPT) {
        drop(&taken);
    }
    tail->spare = taken;
    Waiter *done = take_done(tail);
    Waiter *next_to_lead = tail->waiters;
    if (next_to_lead != NULL) {
        tail->waiters = next_to_lead->next;
    }
    else {
        tail->is_led = 0;
    }
    pthread_mutex_unlock(&tail->mutex);
    /* The disk first, which has nothing to do; the others one after another, since what all of
     * them want next is the interpreter's lock. */
    let_go(next_to_lead);
    let_go(done);
    return error == 0;
}

/* With the mutex held before, not behind it, while somebody else leads. */
static int
wait_or_lead(Tail *tail, uint64_t write, PyThread_type_lock gate, Told *told)
{
    Waiter waiter = {.write = write, .gate = gate};
    PyThread_acquire_lock(gate, WAIT_LOCK);
    Waiter **last = &tail->waiters;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = &waiter;
    pthread_mutex_unlock(&tail->mutex);
    PyThread_acquire_lock(gate, WAIT_LOCK);
    if (waiter.is_done) {
        let_go(waiter.next);
        return waiter.is_durable;
    }
    pthread_mutex_lock(&tail->mutex);
    return lead(tail, told);
}

/* Whether that write is durable; if not, the log has failed.  The interpreter's lock is not held. */
static int
commit(Tail *tail, uint64_t write, Told *told)
{
    PyThread_type_lock gate = NULL;
    pthread_mutex_lock(&tail->mutex);
    /* The error stays when the tail is closed: what it was to write then is gone, and a sync
     * of what is there would speak for it. */
    while (tail->durable < write && tail->error == 0 && tail->is_led && gate == NULL) {
        /* Not under the mutex: with tracemalloc at work, memory waits for the interpreter's lock. */
        pthread_mutex_unlock(&tail->mutex);
        gate = PyThread_allocate_lock();
        if (gate == NULL) {
            /* Out of memory, and what is queued cannot be taken back. */
            usleep(1000);
        }
        pthread_mutex_lock(&tail->mutex);
    }
    int is_durable;
    if (tail->durable >= write || tail->error != 0) {
        is_durable = tail->durable >= write;
        pthread_mutex_unlock(&tail->mutex);
    }
    else if (!tail->is_led) {
        is_durable = lead(tail, told);
    }
    else {
        is_durable = wait_or_lead(tail, write, gate, told);
    }
    if (gate != NULL) {
        PyThread_free_lock(gate);
    }
    return is_durable;
}

/* True; what there is to tell of the write, where that is wanted; None after a failure. */
static PyObject *
commit_and_tell(Tail *tail, uint64_t write)
{
    Told told = {0};
    int is_durable;
    Py_BEGIN_ALLOW_THREADS
    is_durable = commit(tail, write, &told);
    Py_END_ALLOW_THREADS
    if (!is_durable) {
        Py_RETURN_NONE;
    }
    if (told.led && (tail->tells || told.sync_seconds > 1.0)) {
        return Py_BuildValue("ndd", (Py_ssize_t)told.bytes, told.write_seconds, told.sync_seconds);
    }
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(save_doc,
             "save(hard_state, entries)\n--\n\n"
             "Queue a save and have it durable if it has to be.  ``False`` where only the reference\n"
             "can tell, ``None`` when the log has failed meanwhile; what was written by this\n"
             "thread (bytes, seconds of the write and of the sync) where there is something to\n"
             "tell; ``True`` otherwise.");

static PyObject *
save(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    Tail *tail = (Tail *)self;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "save: a hard state and entries");
        return NULL;
    }
    if (tail->is_reserved) {
        Py_RETURN_FALSE;
    }
    int64_t write = queue(tail, arguments[0], arguments[1]);
    if (write == NOT_HERE) {
        Py_RETURN_FALSE;
    }
    if (write == 0) {
        if (tail->tells) {
            return Py_BuildValue("ndd", (Py_ssize_t)0, 0.0, 0.0);
        }
        Py_RETURN_TRUE;
    }
    return commit_and_tell(tail, (uint64_t)write);
}

PyDoc_STRVAR(queue_doc,
             "queue(hard_state, entries)\n--\n\n"
             "The number of the write that makes the save durable, to be given to `commit`; 0\n"
             "where it need not be, -1 where only the reference can tell.");

static PyObject *
queue_one(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "queue: a hard state and entries");
        return NULL;
    }
    return PyLong_FromLongLong(queue((Tail *)self, arguments[0], arguments[1]));
}

PyDoc_STRVAR(commit_doc,
             "commit(write)\n--\n\n"
             "Return when that write is durable, as `save` does.");

static PyObject *
commit_one(PyObject *self, PyObject *number)
{
    uint64_t write;
    if (!read_number(number, &write)) {
        PyErr_SetString(PyExc_TypeError, "commit: the number of a write");
        return NULL;
    }
    return commit_and_tell((Tail *)self, write);
}

PyDoc_STRVAR(open_doc,
             "open(fd, syncs, offset, crc, segment_bytes, limit, last_index, last_term,\n"
             "     lowest_term, hard_state)\n--\n\n"
             "Take saves from here on: the log ends at ``offset`` of a file, with a record behind\n"
             "which the chain is at ``crc``; beyond ``limit`` nothing is written.");

static PyObject *
open_tail(PyObject *self, PyObject *arguments)
{
    Tail *tail = (Tail *)self;
    int fd, syncs;
    unsigned long long offset, segment_bytes, limit, last_index, last_term, lowest_term;
    unsigned long crc;
    PyObject *hard_state;
    if (!PyArg_ParseTuple(arguments, "ipKkKKKKKO", &fd, &syncs, &offset, &crc, &segment_bytes,
                          &limit, &last_index, &last_term, &lowest_term, &hard_state)) {
        return NULL;
    }
    State state = {0};
    if (read_state(tail, hard_state, &state) < 0) {
        PyErr_SetString(PyExc_TypeError, "open: not a hard state");
        return NULL;
    }
    pthread_mutex_lock(&tail->mutex);
    int was_closed = tail->status == CLOSED;
    if (was_closed) {
        tail->fd = fd;
        tail->syncs = syncs;
        tail->offset = offset;
        tail->crc = (uint32_t)crc;
        tail->segment_bytes = segment_bytes;
        tail->limit = limit;
        tail->last_index = last_index;
        tail->last_term = last_term;
        tail->lowest_term = lowest_term;
        tail->state = state;
        tail->status = OPEN;
        tail->is_ahead = 1;
    }
    pthread_mutex_unlock(&tail->mutex);
    if (!was_closed) {
        PyErr_SetString(PyExc_ValueError, "open: it is open");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc,
             "close()\n--\n\n"
             "Take no more saves, and return when those that were queued are durable: where the\n"
             "log ends, its chain's value, its last index, the term, vote and commit of its last\n"
             "hard state, how many entries were saved, and the records that were queued and\n"
             "that nobody waits for; the number of the error and the call that failed, or 0; and what\n"
             "this wrote itself, as `save` tells it.\n"
             "``None`` where it was closed.");

static PyObject *
close_tail(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Tail *tail = (Tail *)self;
    pthread_mutex_lock(&tail->mutex);
    int was_closed = tail->status == CLOSED;
    if (tail->status == OPEN) {
        tail->status = CLOSED;
    }
    int is_busy = tail->is_awaited || tail->is_led;
    /* If nobody leads, a thread was interrupted between its save and its commit. */
    uint64_t last_write = tail->is_awaited ? tail->write : tail->write - 1;
    pthread_mutex_unlock(&tail->mutex);
    if (was_closed) {
        Py_RETURN_NONE;
    }
    Told told = {0};
    if (is_busy) {
        Py_BEGIN_ALLOW_THREADS
        (void)commit(tail, last_write, &told);
        Py_END_ALLOW_THREADS
    }
    PyObject *result = Py_BuildValue(
        "KkK(KKK)Ky#ii(ndd)", (unsigned long long)tail->offset, (unsigned long)tail->crc,
        (unsigned long long)tail->last_index, (unsigned long long)tail->state.term,
        (unsigned long long)tail->state.vote, (unsigned long long)tail->state.commit,
        (unsigned long long)tail->entries, tail->queued.bytes, (Py_ssize_t)tail->queued.size,
        tail->error, tail->failed_call, (Py_ssize_t)told.bytes, told.write_seconds,
        told.sync_seconds);
    if (result != NULL) {
        tail->status = CLOSED;
        tail->queued.size = 0;
        tail->entries = 0;
        tail->has_entries = tail->has_state = tail->is_awaited = 0;
    }
    return result;
}

PyDoc_STRVAR(hard_state_doc,
             "hard_state()\n--\n\n"
             "Term, vote and commit of the last hard state saved.");

static PyObject *
hard_state(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Tail *tail = (Tail *)self;
    return Py_BuildValue("(KKK)", (unsigned long long)tail->state.term,
                         (unsigned long long)tail->state.vote,
                         (unsigned long long)tail->state.commit);
}

PyDoc_STRVAR(count_entries_doc,
             "count_entries()\n--\n\n"
             "How many entries were queued since this was asked before.");

static PyObject *
count_entries(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    Tail *tail = (Tail *)self;
    uint64_t entries = tail->entries;
    tail->entries = 0;
    return PyLong_FromUnsignedLongLong(entries);
}

static PyObject *
new_tail(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    (void)keywords;
    PyObject *hard_state_class;
    int tells;
    if (!PyArg_ParseTuple(arguments, "O!p", &PyType_Type, &hard_state_class, &tells)) {
        return NULL;
    }
    if (!PyType_IsSubtype((PyTypeObject *)hard_state_class, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "Tail: a hard state is a tuple");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Tail *tail = (Tail *)allocate(type, 0);
    if (tail == NULL) {
        return NULL;
    }
    Py_INCREF(hard_state_class);
    tail->hard_state_class = hard_state_class;
    tail->tells = tells;
    tail->write = 1;
    pthread_mutex_init(&tail->mutex, NULL);
    return (PyObject *)tail;
}

static void
free_tail(PyObject *self)
{
    Tail *tail = (Tail *)self;
    PyTypeObject *type = Py_TYPE(self);
    drop(&tail->queued);
    drop(&tail->spare);
    pthread_mutex_destroy(&tail->mutex);
    Py_XDECREF(tail->hard_state_class);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"save", (PyCFunction)(void (*)(void))save, METH_FASTCALL, save_doc},
    {"queue", (PyCFunction)(void (*)(void))queue_one, METH_FASTCALL, queue_doc},
    {"commit", commit_one, METH_O, commit_doc},
    {"open", open_tail, METH_VARARGS, open_doc},
    {"close", close_tail, METH_NOARGS, close_doc},
    {"hard_state", hard_state, METH_NOARGS, hard_state_doc},
    {"count_entries", count_entries, METH_NOARGS, count_entries_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"limit", T_ULONGLONG, offsetof(Tail, limit), 0, "Beyond this nothing is written."},
    {"offset", T_ULONGLONG, offsetof(Tail, offset), READONLY, "Where the file's records end."},
    {"average", T_DOUBLE, offsetof(Tail, average), 0, "Bytes of a write: see zeroing.py."},
    {"last_index", T_ULONGLONG, offsetof(Tail, last_index), READONLY, "That of the log."},
    {"is_ahead", T_INT, offsetof(Tail, is_ahead), 0, "Whether it knows of saves nobody else does."},
    {"is_reserved", T_INT, offsetof(Tail, is_reserved), 0, "Whether `save` refuses."},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
takes_saves(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Tail *)self)->status == OPEN);
}

static PyGetSetDef properties[] = {
    {"takes_saves", takes_saves, NULL, "Whether it is open and has not failed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The end of a log that goes straight to a file."},
    {Py_tp_new, (void *)new_tail},
    {Py_tp_dealloc, (void *)free_tail},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "raftwal.native._codec.Tail",
    .basicsize = sizeof(Tail),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int
tail_prepare(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    if (type == NULL) {
        return -1;
    }
    int failed = PyModule_AddObjectRef(module, "Tail", type);
    Py_DECREF(type);
    return failed;
}

#endif
