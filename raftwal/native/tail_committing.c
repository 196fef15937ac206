/* The writes of `Tail`, and the threads that wait for them. */

#ifndef _WIN32

#include "tail_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "write_back.h"

/* As much is written at once: see raftwal/fs.py. */
#define MOST_BYTES_AT_ONCE (1 << 19)
/* What a log keeps in memory for the next write. */
#define MOST_BYTES_KEPT (1 << 21)

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
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
        tail_put_hard_state(tail);
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

int
tail_commit(Tail *tail, uint64_t write, Told *told)
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

#endif
