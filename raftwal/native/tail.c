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

#include <stddef.h>
#include <structmember.h>

#include "encoding.h"
#include "tail_parts.h"

/* True; what there is to tell of the write, where that is wanted; None after a failure. */
static PyObject *
commit_and_tell(Tail *tail, uint64_t write)
{
    Told told = {0};
    int is_durable;
    Py_BEGIN_ALLOW_THREADS
    is_durable = tail_commit(tail, write, &told);
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
    int64_t write = tail_queue(tail, arguments[0], arguments[1]);
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
    return PyLong_FromLongLong(tail_queue((Tail *)self, arguments[0], arguments[1]));
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
    if (tail_read_state(tail, hard_state, &state) < 0) {
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
        (void)tail_commit(tail, last_write, &told);
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
