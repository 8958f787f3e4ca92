# A cluster of its own, one session that inserts row by row, and a second one that waits for a notification all the time.
set -e
export PATH=$(echo /usr/lib/postgresql/*/bin):$PATH PGHOST=/tmp PGDATABASE=postgres
initdb -D data --no-sync --auth=trust >init.log
pg_ctl -D data -w -l server.log -o "-k /tmp -c listen_addresses=127.0.0.1 -c max_connections=10 -c shared_buffers=8MB" start >start.log
psql -qc 'create table t(i integer primary key, text text)'
cat >work.py <<'P'
import subprocess
session = subprocess.Popen(["psql", "-qtA", "-h", "127.0.0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
waiting = subprocess.Popen(["psql", "-qtA"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
waiting.stdin.write(b"select pg_backend_pid() > 1; listen news;\n")
assert waiting.stdout.readline() == b"t\n"
for i in range(800):
    session.stdin.write(b"insert into t values(%d, md5('%d')) returning md5('x%d');\n" % (i, i, i))
    session.stdout.readline()
    if i % 100 == 99:
        print(f"@{i // 100}", flush=True)
session.stdin.write(b"notify news, 'done';\n")
session.stdin.close()
print("session", session.wait(), session.stdout.read())
waiting.stdin.write(b"select 'heard';\n")
waiting.stdin.close()
print("waiting", waiting.wait(), waiting.stdout.read().split(b" with payload")[0])
P
python3 work.py
psql -tAc "select count(*), sum(i), md5(string_agg(text, ',' order by i)) from t"
pg_ctl -D data -m fast stop >stop.log
pg_ctl -D data -w -l server.log -o "-k /tmp -c listen_addresses=" start >start.log
psql -tAc "select count(*), sum(i), md5(string_agg(text, ',' order by i)) from t"
pg_ctl -D data -m fast stop >stop.log
grep -cE 'PANIC|FATAL|corrupt' server.log || true
