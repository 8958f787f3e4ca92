"""The store's files from outside, by Debian's own liblmdb: to look, to tamper, to be a reader that dies."""
import contextlib
import ctypes

_lib = ctypes.CDLL("liblmdb.so.0")
RDONLY = 0x20000


class _Val(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("data", ctypes.c_void_p)]


def _check(rc):
    if rc:
        raise OSError(rc, f"lmdb: {rc}")


def _val(data):
    buffer = ctypes.create_string_buffer(data, len(data))
    return _Val(len(data), ctypes.cast(buffer, ctypes.c_void_p)), buffer


@contextlib.contextmanager
def transaction(folder, flags=0):
    env, txn = ctypes.c_void_p(), ctypes.c_void_p()
    _check(_lib.mdb_env_create(ctypes.byref(env)))
    _check(_lib.mdb_env_set_maxdbs(env, 16))
    _check(_lib.mdb_env_open(env, folder.encode(), flags, 0o600))
    _check(_lib.mdb_txn_begin(env, None, flags & RDONLY, ctypes.byref(txn)))
    try:
        yield txn
        _check(_lib.mdb_txn_commit(txn))
    finally:
        _lib.mdb_env_close(env)


def put(folder, database, key, value):
    with transaction(folder) as txn:
        dbi = ctypes.c_uint()
        _check(_lib.mdb_dbi_open(txn, database.encode(), 0, ctypes.byref(dbi)))
        (k, hold_key), (v, hold_value) = _val(key), _val(value)
        _check(_lib.mdb_put(txn, dbi, ctypes.byref(k), ctypes.byref(v), 0))
        del hold_key, hold_value


def get(folder, database, key):
    with transaction(folder, RDONLY) as txn:
        dbi, v = ctypes.c_uint(), _Val()
        _check(_lib.mdb_dbi_open(txn, database.encode(), 0, ctypes.byref(dbi)))
        k, hold = _val(key)
        _check(_lib.mdb_get(txn, dbi, ctypes.byref(k), ctypes.byref(v)))
        del hold
        return ctypes.string_at(v.data, v.size)
