# A repository of a few thousand objects, and its clone over git:// on loopback.
set -e
export GIT_AUTHOR_DATE='2024-01-01 00:00:00 +0000' GIT_COMMITTER_DATE='2024-01-01 00:00:00 +0000'
export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@localhost GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@localhost
mkdir -p served/r && cd served/r && git init -q -b main
python3 -c '
import hashlib
for i in range(1500):
    with open(f"f{i}", "w") as f:
        f.write("".join(hashlib.sha256(b"%d %d" % (i, j)).hexdigest() + "\n" for j in range(i % 40)))
'
git add . && git commit -qm first && cd ../..
git daemon --reuseaddr --listen=127.0.0.1 --base-path=$PWD/served --export-all --pid-file=daemon.pid --detach
until git ls-remote -q git://127.0.0.1/r >/dev/null 2>&1; do sleep 0.05; done
echo @clone
git clone -q git://127.0.0.1/r copy
echo @cloned
kill $(cat daemon.pid)
cd copy && git fsck --full 2>&1 && git rev-parse HEAD && git status --porcelain && git ls-files -s | sha256sum && cat f* | sha256sum
