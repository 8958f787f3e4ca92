"""A large memory, of which no two pages are equal, and what may happen to it: one word of input, one line of answer, which is the same
whether or not the program has been to the disk in between."""
import ctypes
import hashlib
import os
import sys
import threading

PAGE = 4096
PROT, PRIVATE = 3, 0x22
DONTNEED = 4
MAYMOVE, FIXED = 1, 2

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]


def check(value):
    assert value not in (-1, None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
    return value


def area(length, at=None):
    return check(libc.mmap(at, length, PROT, PRIVATE | (0x10 if at else 0), -1, 0))


def fill(address, length, seed):
    for page in range(0, length, PAGE):
        ctypes.memmove(address + page, hashlib.sha256(b"%d %d" % (seed, page)).digest() * (PAGE // 32), PAGE)


def digest(address, length):
    """Backwards: what is wanted is rarely what comes next."""
    sha = hashlib.sha256()
    for at in range(length, 0, -PAGE):
        sha.update((ctypes.c_char * PAGE).from_address(address + at - PAGE))
    return sha.hexdigest()


def in_child(work):
    ends = os.pipe()
    if os.fork() == 0:
        os.write(ends[1], work().encode())
        os._exit(0)
    os.close(ends[1])
    with os.fdopen(ends[0]) as answer:
        said = answer.read()
    os.wait()
    return said


SIZE = (int(sys.argv[1]) << 20) // 8 // PAGE * PAGE
areas = [area(SIZE) for _ in range(8)]
hole = area(64 * PAGE)  # never touched before


def everything():
    return " ".join(digest(a, SIZE)[:16] for a in areas)


def forks():
    """A child of a child, while the parents go on."""
    said = in_child(lambda: everything() + " " + in_child(lambda: digest(areas[3], SIZE)[:16]))
    return said + " " + everything()


def unmaps():
    """Holes in what is there, of which one is filled with zeros again."""
    check(libc.munmap(areas[0] + SIZE // 4, SIZE // 4))
    area(SIZE // 4, areas[0] + SIZE // 4)
    for page in range(PAGE, SIZE // 2, 2 * PAGE):
        check(libc.munmap(areas[1] + page, PAGE))
        area(PAGE, areas[1] + page)
    return everything()


def moves():
    """Whole, in the middle, over another, longer and shorter than it was."""
    areas[2] = check(libc.mremap(areas[2], SIZE, SIZE, MAYMOVE | FIXED, area(2 * SIZE) + SIZE // 2 // PAGE * PAGE))
    quarter = SIZE // 4 // PAGE * PAGE
    place = area(quarter)
    check(libc.mremap(areas[3] + quarter, quarter, quarter, MAYMOVE | FIXED, place))
    area(quarter, areas[3] + quarter)
    check(libc.mremap(areas[4] + 2 * quarter, quarter, quarter, MAYMOVE | FIXED, areas[4]))
    area(quarter, areas[4] + 2 * quarter)
    longer = check(libc.mremap(areas[5], SIZE, 2 * SIZE, MAYMOVE, None))
    check(libc.mremap(longer, 2 * SIZE, SIZE // 2, 0, None))
    areas[5] = longer
    area(SIZE // 2, longer + SIZE // 2)
    return digest(place, quarter)[:16] + " " + everything()


def forgets():
    """Zeros, from then on; and what is written there stays."""
    check(libc.madvise(areas[6] + SIZE // 3 // PAGE * PAGE, SIZE // 3 // PAGE * PAGE, DONTNEED))
    fill(areas[6] + SIZE // 2 // PAGE * PAGE, 8 * PAGE, 99)
    fill(hole + 7 * PAGE, PAGE, 98)
    return everything() + " " + digest(hole, 64 * PAGE)[:16]


def threads():
    """Each page by several at once."""
    said = [None] * 8

    def work(number):
        said[number] = digest(areas[number // 2], SIZE)[:16]
    pool = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return " ".join(said) + " " + everything()


def writes():
    """Every third page is changed, before it is read."""
    for a in areas:
        for page in range(0, SIZE, 3 * PAGE):
            ctypes.memmove(a + page + 100, b"changed", 7)
    return everything()


def system():
    """The kernel reads and writes what is not there yet."""
    ends = os.pipe()
    os.write(ends[1], (ctypes.c_char * PAGE).from_address(areas[7] + 5 * PAGE))
    os.readv(ends[0], [(ctypes.c_char * PAGE).from_address(areas[7] + SIZE - PAGE)])
    return everything()


for number, address in enumerate(areas):
    fill(address, SIZE, number)
print("up", flush=True)
for line in sys.stdin:
    print(line.strip(), globals()[line.strip()](), flush=True)
