#!/bin/bash
# tasks_test.sh HALO MODEL DATA: `halo eval --tasks` on MODEL against transformers (tasks.py), 3 items a task.
TRANSFORMERS=5 exec tests/transformers/environment tests/transformers/tasks.py "$1" "$2" "$3" 3
