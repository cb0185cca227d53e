#!/bin/sh
echo "said $* $WORD"
