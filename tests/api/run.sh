#!/bin/bash
# Every RPC from outside, with a gRPC client that is not ours. Arguments select tests: tests/api/run.sh test_files
cd "$(dirname "$0")" && PYTHONPATH=../lib:. exec /usr/bin/python3 main.py "$@"
