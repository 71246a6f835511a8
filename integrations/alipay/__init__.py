"""Alipay (支付宝): taking money, giving it back, and the day's bill.

    merchant.Merchant          who we are there, with both keys
    client.AlipayClient        create, pay_page, query, close, refund, refund_of, bill
    callbacks.receive          a notice's raw body in, what to answer out
    bill.parsed                the zip of a day's trades in, rows in fen out
    sandbox.Sandbox            the gateway, for `make run` and tests

Public-key mode: what Alipay says is checked with the one key its console shows. No certificates yet.

What became of a payment when an answer was lost (OutcomeUnknown):

    create    `query`. None: not there (yet); the same create, word for word, may be sent again, it makes no
              second trade. A trade that was never paid ends by itself at `Order.expires_at`
    close     `query`, and look at its state
    refund    `refund_of`. None: not done; send the same refund with the SAME out_request_no, never a new one
    a page    nothing is asked when it is made; the trade is there once the payer has opened it
"""
