/* What the parts of `Tail` share, on a POSIX system: see tail.c. */

#ifndef RAFTWAL_TAIL_PARTS_H
#define RAFTWAL_TAIL_PARTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include <pythread.h>

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

static inline void
drop(Buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (Buffer){0};
}

/* tail_queueing.c */

#define NOT_HERE (-1)

/* Whether there is a state; -1 for what only the reference can tell. */
int tail_read_state(Tail *tail, PyObject *object, State *state);

/* The number of the write that makes it durable, 0 where none has to, or NOT_HERE. */
int64_t tail_queue(Tail *tail, PyObject *hard_state, PyObject *entries);

/* Behind what else is queued, where there has to be room for it. */
void tail_put_hard_state(Tail *tail);

/* tail_committing.c */

/* Whether that write is durable; if not, the log has failed.  The interpreter's lock is not held. */
int tail_commit(Tail *tail, uint64_t write, Told *told);

#endif
