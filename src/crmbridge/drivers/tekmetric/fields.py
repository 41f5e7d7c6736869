"""Tekmetric tells no schema: its fields, as the driver's paths name them."""

from __future__ import annotations

from crmbridge.core.records import Object

__all__ = ["FIELDS"]

_PERSON = """
firstName        text      r  First name, or the name of a business
lastName         text      -  Last name
email            email     -  E-mail
phone            phone     -  Primary phone, ten digits
address.address1 text      -  Street
address.address2 text      -  Street, second line
address.city     text      -  City
address.state    text      -  State
address.zip      text      -  ZIP
customerTypeId   integer   -  1 person, 2 business
okForMarketing   boolean   -  May be sent marketing
notes            long_text -  Notes
birthday         date      o  Birthday
createdDate      datetime  o  Created
updatedDate      datetime  o  Last change
deletedDate      datetime  o  Deleted
"""
_BLOCK = """
about.company    text      -  Company (a line in the notes)
about.source     text      -  Source (a line in the notes)
about.title      text      -  Subject (a line in the notes)
about.message    long_text -  Message (a line in the notes)
"""
_VEHICLE = """
about.concern    long_text -  Customer's concern (a line in the text)
about.make       text      -  Vehicle make (a line in the text)
about.model      text      -  Vehicle model (a line in the text)
about.year       text      -  Vehicle year (a line in the text)
"""

FIELDS = {
    Object.CUSTOMER: _PERSON,
    Object.LEAD: _PERSON + _BLOCK + _VEHICLE,
    Object.APPOINTMENT: """
title            text      r  Title
startTime        datetime  r  Start
endTime          datetime  r  End
description      long_text -  Description
status           pick_list:NONE,ARRIVED,NO_SHOW,CANCELED - Status
color            text - Colour by name, such as navy or light green
rideOption       pick_list:LOANER,RIDE,NONE - Ride, needs both times
dropoffTime      datetime  -  Drop-off
pickupTime       datetime  -  Pick-up
leadSource       text      -  One of the shop's lead sources
customerId       integer   -  Customer
vehicleId        integer   -  Vehicle of that customer
createdDate      datetime  o  Created
updatedDate      datetime  o  Last change
deletedDate      datetime  o  Deleted
"""
    + _VEHICLE
    + """
about.vin        text      -  VIN (a line in the text)
about.plate      text      -  Licence plate (a line in the text)
about.odometer   text      -  Odometer (a line in the text)
""",
    Object.DEAL: """
repairOrderNumber  integer  o  Number
repairOrderStatus.name text o  Status
totalSales         integer  o  Total, in cents
amountPaid         integer  o  Paid, in cents
customerId         integer  o  Customer
vehicleId          integer  o  Vehicle
completedDate      datetime o  Completed
postedDate         datetime o  Posted
createdDate        datetime o  Created
updatedDate        datetime o  Last change
""",
}
