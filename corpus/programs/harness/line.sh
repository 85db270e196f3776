#!/bin/sh
read -r mark < "$HOME/.decoy-home"
case "$mark:$PWD" in "made-up files for recordings"*":$HOME/work") ;; *) exit 3 ;; esac
