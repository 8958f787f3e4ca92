#!/bin/bash
# Pause to disk, resume, snapshot and fork of real programs. Arguments select tests: tests/checkpoint/run.sh Zoo
cd "$(dirname "$0")" && PYTHONPATH=../lib:. exec /usr/bin/python3 main.py "$@"
