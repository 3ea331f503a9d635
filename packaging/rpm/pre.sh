# The user, before the files. The line is that of sysusers.d/kafka-backup.conf, which is not there yet.
systemd-sysusers --replace=/usr/lib/sysusers.d/kafka-backup.conf - <<'EOF' || :
u kafka-backup - "Kafka Backup" /var/lib/kafka-backup
EOF
