if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    if [ $1 -ge 1 ]; then
        # Upgrade: run the new program, where the old one ran.
        systemctl try-restart kafka-backup.service || :
    fi
fi
