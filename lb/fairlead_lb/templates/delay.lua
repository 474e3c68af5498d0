-- A fault rule: the request waits txn.delay_ms milliseconds.
core.register_action("fairlead_delay", { "http-req" }, function(txn)
    core.msleep(txn:get_var("txn.delay_ms"))
end)
