#!/bin/sh
# Prints how many files stand below the directory it is given.
find "$1" -type f | wc -l | tr -d ' '
