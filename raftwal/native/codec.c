/* The native twin of the log's hot loops: entries into framed, checksummed records and back.
 *
 * It takes the usual case only, and says so when it meets another: the Python code beside it
 * is the reference, and has the last word on whatever is refused.  So both accept the same,
 * and every error is made in one place.
 *
 * No Python code runs inside these loops, so lists and tuples do not change under them.
 */

#include "encoding.h"
#include "tail.h"
#include "write_back.h"

#define LENGTH_MASK ((1ull << 56) - 1)

/* Data of so many bytes an entry is handed on as it is: a copy would take longer than the system
 * takes to gather one piece more. */
#define BYTES_NOT_COPIED 4096

/* etcd's page writer: see raftwal/wal/cut_rule.py. */
#define PAGE_BYTES 4096
#define KEPT_BACK_BYTES (128 * 1024)

/* Reads a number of at most `most` bytes; NULL when it does not end before `end`. */
static const uint8_t *
read_varint(const uint8_t *at, const uint8_t *end, int most, uint64_t *number)
{
    uint64_t value = 0;
    for (int group = 0; group < most && at < end; group++) {
        uint8_t byte = *at++;
        if (group == 9 && byte > 1) {
            return NULL;
        }
        value |= (uint64_t)(byte & 0x7f) << 7 * group;
        if (byte < 0x80) {
            *number = value;
            return at;
        }
    }
    return NULL;
}

static uint64_t
read_little_endian(const uint8_t *at)
{
    uint64_t value = 0;
    for (int byte = 7; byte >= 0; byte--) {
        value = value << 8 | at[byte];
    }
    return value;
}

PyDoc_STRVAR(check_sequence_doc,
             "check_sequence(entries)\n--\n\n"
             "Index and term of the first, if there is one and each that follows can be saved\n"
             "behind the one before it; ``None`` where only the reference can tell.");

static PyObject *
check_sequence(PyObject *module, PyObject *entries)
{
    (void)module;
    Py_ssize_t count = length_of(entries);
    Entry first = {0};
    Entry last = {0};
    for (Py_ssize_t position = 0; position < count; position++) {
        Entry entry;
        if (!read_entry(item_of(entries, position), &entry) || entry.index == UINT64_MAX ||
            (position > 0 && (entry.index != last.index + 1 || entry.term < last.term))) {
            PyErr_Clear();
            Py_RETURN_NONE;
        }
        if (position == 0) {
            first = entry;
        }
        last = entry;
    }
    if (count <= 0) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("KK", (unsigned long long)first.index, (unsigned long long)first.term);
}

static int
append_new(PyObject *list, PyObject *item)
{
    if (item == NULL) {
        return -1;
    }
    int failed = PyList_Append(list, item);
    Py_DECREF(item);
    return failed;
}

/* The frames in one piece. */
static int
encode_copied(PyObject *entries, Py_ssize_t count, Py_ssize_t most_bytes, uint32_t *crc,
              PyObject *pieces, char *sizes, uint64_t *total)
{
    /* One that can be cut to its size without a copy. */
    PyObject *frames = PyByteArray_FromStringAndSize(NULL, most_bytes);
    if (frames == NULL) {
        return -1;
    }
    uint8_t *start = (uint8_t *)PyByteArray_AsString(frames);
    uint8_t *at = start;
    for (Py_ssize_t position = 0; position < count; position++) {
        Entry entry = {0};
        (void)read_entry(item_of(entries, position), &entry);
        uint8_t *next = write_frame(at, &entry, crc);
        uint64_t size = (uint64_t)(next - at);
        memcpy(sizes, &size, sizeof size);
        sizes += sizeof size;
        at = next;
    }
    *total = (uint64_t)(at - start);
    if (PyByteArray_Resize(frames, at - start) < 0) {
        Py_DECREF(frames);
        return -1;
    }
    return append_new(pieces, frames);
}

/* The frames in pieces, the entries' own data among them. */
static int
encode_around(PyObject *entries, Py_ssize_t count, uint32_t *crc, PyObject *pieces, char *sizes,
              uint64_t *total)
{
    size_t padding = 0;
    for (Py_ssize_t position = 0; position < count; position++) {
        PyObject *item = item_of(entries, position);
        Entry entry = {0};
        (void)read_entry(item, &entry);
        /* Behind the padding of the one before, which comes in one piece with it. */
        uint8_t between[7 + sizeof(Head)] = {0};
        Head head;
        make_head(&head, &entry, crc);
        memcpy(between + padding, head.bytes, head.size);
        PyObject *piece =
            PyBytes_FromStringAndSize((char *)between, (Py_ssize_t)(padding + head.size));
        if (append_new(pieces, piece) < 0 ||
            (entry.size > 0 && PyList_Append(pieces, PyTuple_GetItem(item, 2)) < 0)) {
            return -1;
        }
        uint64_t size = head.size + (uint64_t)entry.size + head.padding;
        memcpy(sizes, &size, sizeof size);
        sizes += sizeof size;
        *total += size;
        padding = head.padding;
    }
    const char zeros[7] = {0};
    return padding ? append_new(pieces, PyBytes_FromStringAndSize(zeros, (Py_ssize_t)padding)) : 0;
}

PyDoc_STRVAR(encode_entries_doc,
             "encode_entries(entries, crc)\n--\n\n"
             "Their framed records, in a list of pieces; the size of each record as a native\n"
             "64-bit number; the chain's value behind the last; how many bytes they are.\n"
             "``None`` where only the reference can tell.");

static PyObject *
encode_entries(PyObject *module, PyObject *arguments)
{
    (void)module;
    PyObject *entries;
    unsigned long before;
    if (!PyArg_ParseTuple(arguments, "Ok", &entries, &before)) {
        return NULL;
    }
    Py_ssize_t count = length_of(entries);
    if (count < 0) {
        Py_RETURN_NONE;
    }
    /* Before the entries are looked at: a new list can have garbage collected, and so any code run.
     * Nothing that is made from there on can, so they stay what they were found to be. */
    PyObject *pieces = PyList_New(0);
    if (pieces == NULL) {
        return NULL;
    }
    Py_ssize_t data_bytes = 0;
    for (Py_ssize_t position = 0; position < count; position++) {
        Entry entry;
        if (!read_entry(item_of(entries, position), &entry)) {
            PyErr_Clear();
            Py_DECREF(pieces);
            Py_RETURN_NONE;
        }
        if (entry.size > PY_SSIZE_T_MAX / 2 - data_bytes) {
            Py_DECREF(pieces);
            return PyErr_NoMemory();
        }
        data_bytes += entry.size;
    }
    PyObject *sizes = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(uint64_t));
    uint32_t crc = (uint32_t)before;
    uint64_t total = 0;
    int failed = -1;
    if (sizes != NULL) {
        char *size_at = PyBytes_AsString(sizes);
        failed = data_bytes >= count * BYTES_NOT_COPIED
                     ? encode_around(entries, count, &crc, pieces, size_at, &total)
                     : encode_copied(entries, count, data_bytes + count * (Py_ssize_t)sizeof(Head),
                                     &crc, pieces, size_at, &total);
    }
    if (failed < 0) {
        Py_DECREF(pieces);
        Py_XDECREF(sizes);
        return NULL;
    }
    return Py_BuildValue("NNkK", pieces, sizes, (unsigned long)crc, (unsigned long long)total);
}

typedef struct {
    uint64_t offset;
    uint64_t page_offset;
    uint64_t buffered;
} HandedOver;

static void
hand_over_buffered(HandedOver *writer)
{
    writer->offset += writer->buffered;
    writer->page_offset = (writer->page_offset + writer->buffered) % PAGE_BYTES;
    writer->buffered = 0;
}

static void
hand_over(HandedOver *writer, uint64_t count)
{
    if (writer->buffered + count <= KEPT_BACK_BYTES) {
        writer->buffered += count;
        return;
    }
    uint64_t slack = -(writer->page_offset + writer->buffered) % PAGE_BYTES;
    if (slack > 0) {
        uint64_t filled = slack < count ? slack : count;
        writer->buffered += filled;
        count -= filled;
        if (filled < slack) {
            return;
        }
    }
    hand_over_buffered(writer);
    if (count > PAGE_BYTES) {
        uint64_t pages = count / PAGE_BYTES * PAGE_BYTES;
        writer->offset += pages;
        count -= pages;
    }
    writer->buffered += count;
}

PyDoc_STRVAR(hand_over_frames_doc,
             "hand_over_frames(offset, page_offset, buffered, sizes)\n--\n\n"
             "What becomes of the first three as etcd's page writer takes frames of these sizes.");

static PyObject *
hand_over_frames(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned long long offset, page_offset, buffered;
    Py_buffer sizes;
    if (!PyArg_ParseTuple(arguments, "KKKy*", &offset, &page_offset, &buffered, &sizes)) {
        return NULL;
    }
    HandedOver writer = {offset, page_offset, buffered};
    const char *at = sizes.buf;
    for (Py_ssize_t left = sizes.len; left >= (Py_ssize_t)sizeof(uint64_t);
         left -= (Py_ssize_t)sizeof(uint64_t), at += sizeof(uint64_t)) {
        uint64_t size;
        memcpy(&size, at, sizeof size);
        hand_over(&writer, LENGTH_FIELD_BYTES);
        hand_over(&writer, size - LENGTH_FIELD_BYTES);
    }
    PyBuffer_Release(&sizes);
    return Py_BuildValue("KKK", (unsigned long long)writer.offset,
                         (unsigned long long)writer.page_offset,
                         (unsigned long long)writer.buffered);
}

/* The frame of a whole entry at `at`; where the next one begins, or NULL when there is none
 * of the usual kind that continues the checksum. */
static const uint8_t *
read_frame(const uint8_t *at, const uint8_t *end, Entry *entry, uint32_t *crc)
{
    if (end - at < LENGTH_FIELD_BYTES) {
        return NULL;
    }
    uint64_t field = read_little_endian(at);
    uint64_t length = field & LENGTH_MASK;
    uint64_t padding = -length & 7;
    const uint8_t *record = at + LENGTH_FIELD_BYTES;
    if (field >> 56 != (padding ? 0x80 | padding : 0) ||
        length + padding > (uint64_t)(end - record) || length < 3) {
        return NULL;
    }
    const uint8_t *record_end = record + length;
    if (record[0] != 0x08 || record[1] != RECORD_OF_AN_ENTRY || record[2] != 0x10) {
        return NULL;
    }
    uint64_t stated;
    uint64_t payload_bytes;
    const uint8_t *next = read_varint(record + 3, record_end, 5, &stated);
    if (next == NULL || stated > UINT32_MAX || next == record_end || *next != 0x1a) {
        return NULL;
    }
    next = read_varint(next + 1, record_end, 5, &payload_bytes);
    if (next == NULL || payload_bytes != (uint64_t)(record_end - next) || payload_bytes < 3) {
        return NULL;
    }
    for (uint64_t position = 0; position < padding; position++) {
        if (record_end[position] != 0) {
            return NULL;
        }
    }
    uint32_t chain = crc32c_extend(*crc, next, (size_t)payload_bytes);
    if (chain != stated || next[0] != 0x08 || next[1] > LAST_ENTRY_TYPE || next[2] != 0x10) {
        return NULL;
    }
    entry->type = next[1];
    next = read_varint(next + 3, record_end, 10, &entry->term);
    if (next == NULL || next == record_end || *next != 0x18) {
        return NULL;
    }
    next = read_varint(next + 1, record_end, 10, &entry->index);
    if (next == NULL) {
        return NULL;
    }
    entry->data = NULL;
    entry->size = 0;
    if (next != record_end) {
        uint64_t size;
        if (*next != 0x22) {
            return NULL;
        }
        next = read_varint(next + 1, record_end, 5, &size);
        if (next == NULL || size != (uint64_t)(record_end - next)) {
            return NULL;
        }
        entry->data = (const char *)next;
        entry->size = (Py_ssize_t)size;
    }
    *crc = chain;
    return record_end + padding;
}

/* An entry is a tuple with names, so it is made as tuple.__new__ makes it. */
static PyObject *
make_entry(PyTypeObject *entry_class, allocfunc allocate, const Entry *entry, PyObject *term,
           PyObject *type)
{
    PyObject *made = allocate(entry_class, 4);
    if (made == NULL) {
        return NULL;
    }
    Py_INCREF(term);
    PyTuple_SetItem(made, 0, term);
    PyObject *index = PyLong_FromUnsignedLongLong(entry->index);
    PyObject *data = Py_None;
    if (entry->data == NULL) {
        Py_INCREF(data);
    }
    else {
        data = PyBytes_FromStringAndSize(entry->data, entry->size);
    }
    if (index == NULL || data == NULL) {
        Py_XDECREF(index);
        Py_XDECREF(data);
        Py_DECREF(made);
        return NULL;
    }
    PyTuple_SetItem(made, 1, index);
    PyTuple_SetItem(made, 2, data);
    Py_INCREF(type);
    PyTuple_SetItem(made, 3, type);
    /* Nothing in it can refer back to it, and a million of them would have the collector go
     * through them again and again. */
    PyObject_GC_UnTrack(made);
    return made;
}

static int
note_term(PyObject *terms, uint64_t index, PyObject *term)
{
    PyObject *change = Py_BuildValue("KO", (unsigned long long)index, term);
    if (change == NULL) {
        return -1;
    }
    int failed = PyList_Append(terms, change);
    Py_DECREF(change);
    return failed;
}

PyDoc_STRVAR(
    decode_entries_doc,
    "decode_entries(buffer, offset, crc, first_kept, most, entry_class, entry_types)\n--\n\n"
    "The entries from ``offset`` on, no more than ``most``, each following on the one before.\n\n"
    "Gives those from index ``first_kept`` on, in a list; how many there were in all; the\n"
    "index of the first; where their terms begin, as ``(index, term)``; where the last of them\n"
    "and where what follows begins; and the chain's value there.  Stops before whatever is not\n"
    "a whole entry of the usual kind, which is for the reference to judge.");

static PyObject *
decode_entries(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer buffer;
    Py_ssize_t offset, most;
    unsigned long before;
    unsigned long long first_kept;
    PyObject *entry_class, *entry_types;
    if (!PyArg_ParseTuple(arguments, "y*nkKnO!O!", &buffer, &offset, &before, &first_kept, &most,
                          &PyType_Type, &entry_class, &PyTuple_Type, &entry_types)) {
        return NULL;
    }
    if (offset < 0 || offset > buffer.len || PyTuple_Size(entry_types) != LAST_ENTRY_TYPE + 1 ||
        !PyType_IsSubtype((PyTypeObject *)entry_class, &PyTuple_Type)) {
        PyBuffer_Release(&buffer);
        PyErr_SetString(PyExc_ValueError, "decode_entries: no such place, or no such types");
        return NULL;
    }
    allocfunc allocate =
        (allocfunc)PyType_GetSlot((PyTypeObject *)entry_class, Py_tp_alloc);
    const uint8_t *start = buffer.buf;
    const uint8_t *end = start + buffer.len;
    const uint8_t *at = start + offset;
    const uint8_t *last = at;
    uint32_t crc = (uint32_t)before;
    Py_ssize_t count = 0;
    uint64_t first_index = 0;
    uint64_t last_index = 0;
    uint64_t last_term = 0;
    PyObject *term = NULL;
    PyObject *entries = PyList_New(0);
    PyObject *terms = PyList_New(0);
    if (entries == NULL || terms == NULL) {
        goto failed;
    }
    while (count < most) {
        Entry entry;
        uint32_t chain = crc;
        const uint8_t *next = read_frame(at, end, &entry, &chain);
        if (next == NULL || entry.index == 0 ||
            (count > 0 && (entry.index != last_index + 1 || entry.term < last_term))) {
            break;
        }
        if (count == 0 || entry.term != last_term) {
            Py_XDECREF(term);
            term = PyLong_FromUnsignedLongLong(entry.term);
            if (term == NULL || note_term(terms, entry.index, term) < 0) {
                goto failed;
            }
        }
        if (entry.index >= first_kept) {
            PyObject *made =
                make_entry((PyTypeObject *)entry_class, allocate, &entry, term,
                           PyTuple_GetItem(entry_types, entry.type));
            if (made == NULL) {
                goto failed;
            }
            int appended = PyList_Append(entries, made);
            Py_DECREF(made);
            if (appended < 0) {
                goto failed;
            }
        }
        if (count == 0) {
            first_index = entry.index;
        }
        last_index = entry.index;
        last_term = entry.term;
        crc = chain;
        last = at;
        at = next;
        count++;
    }
    Py_XDECREF(term);
    PyBuffer_Release(&buffer);
    return Py_BuildValue("NnKNnnk", entries, count, (unsigned long long)first_index, terms,
                         (Py_ssize_t)(last - start), (Py_ssize_t)(at - start), (unsigned long)crc);
failed:
    Py_XDECREF(term);
    Py_XDECREF(entries);
    Py_XDECREF(terms);
    PyBuffer_Release(&buffer);
    return NULL;
}

static PyObject *
checksum(PyObject *arguments, uint32_t (*extend)(uint32_t, const uint8_t *, size_t))
{
    unsigned long crc;
    Py_buffer data;
    if (!PyArg_ParseTuple(arguments, "ky*", &crc, &data)) {
        return NULL;
    }
    uint32_t extended;
    if (data.len < (1 << 16)) {
        extended = extend((uint32_t)crc, data.buf, (size_t)data.len);
    }
    else {
        /* Milliseconds for a snapshot's chunk: other threads need not wait for it. */
        Py_BEGIN_ALLOW_THREADS
        extended = extend((uint32_t)crc, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(extended);
}

PyDoc_STRVAR(extend_crc_doc,
             "extend_crc(crc, data)\n--\n\n"
             "The CRC-32C of what ``crc`` covers, followed by ``data``.");

static PyObject *
extend_crc(PyObject *module, PyObject *arguments)
{
    (void)module;
    return checksum(arguments, crc32c_extend);
}

PyDoc_STRVAR(extend_crc_by_tables_doc,
             "extend_crc_by_tables(crc, data)\n--\n\n"
             "As `extend_crc`, as a processor without the instruction does it.");

static PyObject *
extend_crc_by_tables(PyObject *module, PyObject *arguments)
{
    (void)module;
    return checksum(arguments, crc32c_extend_by_tables);
}

static PyMethodDef methods[] = {
    {"check_sequence", check_sequence, METH_O, check_sequence_doc},
    {"encode_entries", encode_entries, METH_VARARGS, encode_entries_doc},
    {"hand_over_frames", hand_over_frames, METH_VARARGS, hand_over_frames_doc},
    {"decode_entries", decode_entries, METH_VARARGS, decode_entries_doc},
    {"extend_crc", extend_crc, METH_VARARGS, extend_crc_doc},
    {"extend_crc_by_tables", extend_crc_by_tables, METH_VARARGS, extend_crc_by_tables_doc},
    {NULL, NULL, 0, NULL},
};

static int
prepare(PyObject *module)
{
    crc32c_prepare();
    if (write_back_prepare(module) < 0 || tail_prepare(module) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "CRC_METHOD", crc32c_method());
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)prepare},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_codec",
    .m_doc = "The native twin of the log's hot loops.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__codec(void)
{
    return PyModuleDef_Init(&definition);
}
