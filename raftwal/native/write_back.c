#ifdef __linux__
#define _GNU_SOURCE
#endif

#include "write_back.h"

#ifdef __linux__

#include <errno.h>
#include <fcntl.h>

int
begin_write_back(int fd, uint64_t offset, size_t size)
{
    /* With this flag alone an error of the disk stays to be told by the next sync. What is told
     * here all the same is taken seriously, but for a system that has no such call, or lets
     * nobody have it. */
    if (sync_file_range(fd, (off_t)offset, (off_t)size, SYNC_FILE_RANGE_WRITE) == 0) {
        return 0;
    }
    return errno == EIO || errno == ENOSPC || errno == EDQUOT ? errno : 0;
}

/* The file, the place in it and the length. */
static int
range_of(PyObject *arguments, int *fd, long long *offset, long long *length)
{
    return PyArg_ParseTuple(arguments, "iLL", fd, offset, length);
}

PyDoc_STRVAR(begin_write_back_doc,
             "begin_write_back(fd, offset, length)\n--\n\n"
             "Have the system begin to write a part of a file to the disk, where it can.");

static PyObject *
begin(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd;
    long long offset, length;
    if (!range_of(arguments, &fd, &offset, &length)) {
        return NULL;
    }
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = begin_write_back(fd, (uint64_t)offset, (size_t)length);
    Py_END_ALLOW_THREADS
    if (error != 0) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(write_back_doc,
             "write_back(fd, offset, length)\n--\n\n"
             "Have a part of a file written to the disk: see sync_file_range(2).");

static PyObject *
write_back(PyObject *module, PyObject *arguments)
{
    (void)module;
    int fd;
    long long offset, length;
    if (!range_of(arguments, &fd, &offset, &length)) {
        return NULL;
    }
    int failed;
    Py_BEGIN_ALLOW_THREADS
    do {
        failed = sync_file_range(fd, (off_t)offset, (off_t)length,
                                 SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                     SYNC_FILE_RANGE_WAIT_AFTER);
    } while (failed < 0 && errno == EINTR);
    Py_END_ALLOW_THREADS
    if (failed < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"begin_write_back", begin, METH_VARARGS, begin_write_back_doc},
    {"write_back", write_back, METH_VARARGS, write_back_doc},
    {NULL, NULL, 0, NULL},
};

int
write_back_prepare(PyObject *module)
{
    return PyModule_AddFunctions(module, methods);
}

#else

int
begin_write_back(int fd, uint64_t offset, size_t size)
{
    (void)fd;
    (void)offset;
    (void)size;
    return 0;
}

int
write_back_prepare(PyObject *module)
{
    (void)module;
    return 0;
}

#endif
