#!/bin/sh
# The door the procedures document. All it does is `nightsafe backup`, installed or built beside this file.
here=$(dirname "$0")
PATH="$PATH:$here:$here/target/release:$here/target/debug" exec nightsafe backup "$@"
