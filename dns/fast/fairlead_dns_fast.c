/* The UDP loop of fairlead_dns.adapters.udp, compiled: packets and replies cross the kernel's border 64 at a time.
 *
 * It knows nothing of DNS: a packet less its first two bytes is looked up in the table of its sender's address; what is
 * found is called, and gives the reply less its first two bytes. Whatever is not found goes back to Python.
 * It runs with the GIL held, in one thread, and keeps no pointer of Python's beyond a call but addresses as text.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define PACKET_BYTES 4096
#define ID_BYTES 2
#define KNOWN 1024 /* addresses whose text is kept, by a hash of theirs; a power of two */

typedef struct {
    unsigned char raw[16];
    sa_family_t family;
    PyObject *text;
} Known;

static Known known[KNOWN];
static unsigned char packets[BATCH][PACKET_BYTES];
static struct sockaddr_storage peers[BATCH];
static struct iovec in_parts[BATCH], out_parts[BATCH][2];
static struct mmsghdr in[BATCH], out[BATCH];
static PyObject *bodies[BATCH];

/* A new reference to the address as text; NULL with an exception set. */
static PyObject *address_text(const struct sockaddr_storage *peer) {
    unsigned char raw[16] = {0};
    char text[INET6_ADDRSTRLEN];
    unsigned hash = 2166136261u;
    if (peer->ss_family == AF_INET6)
        memcpy(raw, &((const struct sockaddr_in6 *)peer)->sin6_addr, 16);
    else
        memcpy(raw, &((const struct sockaddr_in *)peer)->sin_addr, 4);
    for (int i = 0; i < 16; i++)
        hash = (hash ^ raw[i]) * 16777619u;
    Known *slot = &known[(hash ^ hash >> 16) & (KNOWN - 1)];
    if (slot->text == NULL || slot->family != peer->ss_family || memcmp(slot->raw, raw, 16) != 0) {
        if (inet_ntop(peer->ss_family, raw, text, sizeof text) == NULL)
            return PyErr_SetFromErrno(PyExc_OSError);
        PyObject *made = PyUnicode_FromString(text);
        if (made == NULL)
            return NULL;
        Py_XSETREF(slot->text, made);
        slot->family = peer->ss_family;
        memcpy(slot->raw, raw, 16);
    }
    return Py_NewRef(slot->text);
}

/* (packet, address as the socket module has it) appended to `left`; -1 with an exception set. */
static int hand_back(PyObject *left, const unsigned char *packet, Py_ssize_t size, const struct sockaddr_storage *peer,
                     PyObject *text) {
    PyObject *item;
    if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)peer;
        item = Py_BuildValue("(y#(OiII))", packet, size, text, (int)ntohs(six->sin6_port),
                             (unsigned)ntohl(six->sin6_flowinfo), (unsigned)six->sin6_scope_id);
    } else {
        item = Py_BuildValue("(y#(Oi))", packet, size, text, (int)ntohs(((const struct sockaddr_in *)peer)->sin_port));
    }
    if (item == NULL)
        return -1;
    int failed = PyList_Append(left, item);
    Py_DECREF(item);
    return failed;
}

/* The reply's body as a new reference; NULL without an exception: there is none prepared. */
static PyObject *prepared(PyObject *tables, PyObject *text, const unsigned char *packet, Py_ssize_t size) {
    PyObject *table = PyDict_GetItemWithError(tables, text);
    if (table == NULL || size <= ID_BYTES)
        return NULL;
    if (!PyDict_Check(table)) {
        PyErr_SetString(PyExc_TypeError, "a table is no dict");
        return NULL;
    }
    Py_INCREF(table); /* comparing keys may run anything */
    PyObject *rest = PyBytes_FromStringAndSize((const char *)packet + ID_BYTES, size - ID_BYTES);
    if (rest == NULL) {
        Py_DECREF(table);
        return NULL;
    }
    PyObject *next = Py_XNewRef(PyDict_GetItemWithError(table, rest));
    Py_DECREF(table);
    Py_DECREF(rest);
    if (next == NULL)
        return NULL;
    PyObject *body = PyObject_CallNoArgs(next);
    Py_DECREF(next);
    if (body != NULL && !PyBytes_Check(body)) {
        Py_SETREF(body, NULL);
        PyErr_SetString(PyExc_TypeError, "a prepared reply is no bytes");
    }
    return body;
}

/* Sends `count` replies; returns how many were lost: one by one where the kernel refuses one, all when its buffer is full. */
static int send_all(int fd, int count) {
    int sent = 0, lost = 0;
    while (sent < count) {
        int done = sendmmsg(fd, out + sent, (unsigned)(count - sent), MSG_DONTWAIT);
        if (done > 0) {
            sent += done;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return lost + count - sent;
        } else if (errno != EINTR) {
            sent++;
            lost++;
        }
    }
    return lost;
}

static void put_out(int at, int from, PyObject *body) {
    bodies[at] = body;
    out_parts[at][0].iov_base = packets[from];
    out_parts[at][0].iov_len = ID_BYTES;
    out_parts[at][1].iov_base = PyBytes_AS_STRING(body);
    out_parts[at][1].iov_len = (size_t)PyBytes_GET_SIZE(body);
    memset(&out[at], 0, sizeof out[at]);
    out[at].msg_hdr.msg_name = &peers[from];
    out[at].msg_hdr.msg_namelen = in[from].msg_hdr.msg_namelen;
    out[at].msg_hdr.msg_iov = out_parts[at];
    out[at].msg_hdr.msg_iovlen = 2;
}

/* One packet: into the replies, or back to Python. -1 with an exception set. */
static int take(int from, PyObject *tables, PyObject *left, int *replies) {
    PyObject *text = address_text(&peers[from]);
    if (text == NULL)
        return -1;
    int failed = 0;
    Py_ssize_t size = in[from].msg_len;
    PyObject *body = prepared(tables, text, packets[from], size);
    if (body != NULL)
        put_out((*replies)++, from, body);
    else
        failed = PyErr_Occurred() ? -1 : hand_back(left, packets[from], size, &peers[from], text);
    Py_DECREF(text);
    return failed;
}

static int receive(int fd, int wanted) {
    for (int i = 0; i < wanted; i++) {
        in_parts[i].iov_base = packets[i];
        in_parts[i].iov_len = PACKET_BYTES;
        memset(&in[i], 0, sizeof in[i]);
        in[i].msg_hdr.msg_name = &peers[i];
        in[i].msg_hdr.msg_namelen = sizeof peers[i];
        in[i].msg_hdr.msg_iov = &in_parts[i];
        in[i].msg_hdr.msg_iovlen = 1;
    }
    int got;
    do {
        got = recvmmsg(fd, in, (unsigned)wanted, MSG_DONTWAIT, NULL);
    } while (got < 0 && errno == EINTR);
    return got;
}

PyDoc_STRVAR(drain_doc, "drain(fd, tables, most) -> (received, answered, lost, error, left)\n\n"
                        "Answers what waits in the UDP socket, up to `most` packets. `left`: those without a prepared\n"
                        "reply, as [(packet, address)]. `error`: errno of the receiving, 0 for none.");

static PyObject *drain(PyObject *Py_UNUSED(self), PyObject *args) {
    int fd, most, received = 0, answered = 0, lost = 0, error = 0;
    PyObject *tables;
    if (!PyArg_ParseTuple(args, "iO!i", &fd, &PyDict_Type, &tables, &most))
        return NULL;
    PyObject *left = PyList_New(0);
    if (left == NULL)
        return NULL;
    while (received < most) {
        int wanted = most - received < BATCH ? most - received : BATCH, replies = 0, failed = 0;
        int got = receive(fd, wanted);
        if (got <= 0) {
            error = got == 0 || errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
            break;
        }
        for (int i = 0; i < got && !failed; i++)
            failed = take(i, tables, left, &replies);
        int gone = send_all(fd, replies);
        for (int i = 0; i < replies; i++)
            Py_CLEAR(bodies[i]);
        if (failed) {
            Py_DECREF(left);
            return NULL;
        }
        received += got;
        answered += replies - gone;
        lost += gone;
        if (got < wanted)
            break;
    }
    return Py_BuildValue("(iiiiN)", received, answered, lost, error, left);
}

static PyMethodDef methods[] = {{"drain", drain, METH_VARARGS, drain_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "fairlead_dns_fast", "The UDP loop of fairlead's DNS server, compiled.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_fairlead_dns_fast(void) {
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntConstant(made, "API", 1) < 0)
        Py_CLEAR(made);
    return made;
}
