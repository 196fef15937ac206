/* Having the system write a part of a file to the disk before a sync asks for it: where it can, on
 * Linux. Nothing is durable by it, and the disk's cache is not flushed.
 */

#ifndef RAFTWAL_WRITE_BACK_H
#define RAFTWAL_WRITE_BACK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* 0, or what is wrong with the disk; begins, and does not wait. */
int begin_write_back(int fd, uint64_t offset, size_t size);

int write_back_prepare(PyObject *module);

#endif
