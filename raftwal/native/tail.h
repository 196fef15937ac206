/* `Tail`, where the system has what it needs: see tail.c. */

#ifndef RAFTWAL_TAIL_H
#define RAFTWAL_TAIL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int tail_prepare(PyObject *module);

#endif
