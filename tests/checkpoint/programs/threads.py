"""Four threads and SQLite: each thread hashes on, one writes what they found into a database; a mark for every hundred rows."""
import hashlib
import queue
import sqlite3
import threading

ROWS, THREADS = 800, 4
done = [queue.Queue(8) for _ in range(THREADS)]


def work(number):
    digest = b"%d" % number
    for _ in range(ROWS // THREADS):
        for _ in range(400):
            digest = hashlib.sha256(digest).digest()
        done[number].put(digest.hex())


for i in range(THREADS):
    threading.Thread(target=work, args=(i,), daemon=True).start()
db = sqlite3.connect("/home/user/threads.db")
db.execute("pragma journal_mode=wal")
db.execute("create table t(row integer primary key, digest text)")
for row in range(ROWS):
    with db:
        db.execute("insert into t values(?, ?)", (row, done[row % THREADS].get()))
    if row % 100 == 99:
        print(f"@{row // 100}", flush=True)
print(db.execute("pragma integrity_check").fetchone()[0])
total = hashlib.sha256()
for row in db.execute("select row, digest from t order by row"):
    total.update(repr(row).encode())
print(total.hexdigest())
